"""Checkpoints: which versions lie on whose disks, who writes the next one, and when an old one may go.

Each node says all that it has, again and again, so that news may be lost and what is taken back needs no word. What
others say is hearsay: it decides who waits for whom, and which own checkpoint is spare.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from ..events import Action, Discard, Report, Send
from ..names import NodeId, TaskKey, VersionId
from ..rendezvous import ranked
from ..run_state import status as runs
from ..steps.duties import SAVE, Duty
from ..versions.versions import preference
from ..wire.steps import CheckpointPut, Head, Header
from ..work import SaveWork

if TYPE_CHECKING:
    from ..runs.run import Run, Surroundings

COMMIT_WAIT = 4.0  # suspicion times for a second holder to claim a version; then the own copy on disk counts
SAVERS = 2  # disks that a checkpoint lies on
MOST_HEADS = 64  # that one member may say to have


class Checkpoints:
    """One run's checkpoints as one node knows them."""

    def __init__(self, run: Run, mine: Iterable[Header], unread: Iterable[str] = ()) -> None:
        """`mine`: what was found on this node's disk at its start. `unread`: what was found there and cannot be read,
        in words."""
        self.run = run
        self.mine = {header.id: header for header in mine}
        self.unread = tuple(unread)
        self.refused: dict[VersionId, tuple[Header, str]] = {}  # own ones that could not be brought back, and why
        self.others: dict[NodeId, tuple[Head, ...]] = {}  # as each said last; a node that said nothing is not in it
        self._has_parted = False

    # What is where --------------------------------------------------------------------------------------------------

    @property
    def best(self) -> Header | None:
        """The best one on this node's disk."""
        return min(self.mine.values(), key=lambda header: preference(header.head), default=None)

    def best_elsewhere(self, living: Collection[NodeId]) -> Head | None:
        heads = [head for node, said in self.others.items() if node in living for head in said]
        return min(heads, key=preference, default=None)

    def holders(self, version: VersionId, living: Collection[NodeId]) -> set[NodeId]:
        """Living nodes that have it on disk, this one included."""
        said = {node: {head.version for head in heads} for node, heads in self.others.items() if node in living}
        found = {node for node, versions in said.items() if version in versions}
        return found | {self.run.me} if version in self.mine else found

    def hear(self, source: NodeId, heads: tuple[Head, ...]) -> None:
        self.others[source] = heads[:MOST_HEADS]

    def forget(self, node: NodeId) -> None:
        self.others.pop(node, None)

    def tell(self, nodes: Iterable[NodeId], out: list[Action]) -> None:
        """Say what lies on this disk."""
        heads = sorted((header.head for header in self.mine.values()), key=preference)[:MOST_HEADS]
        message = CheckpointPut(self.run.id, tuple(heads))
        out.extend(Send(node, message) for node in sorted(nodes) if node != self.run.me)

    # Writing --------------------------------------------------------------------------------------------------------

    def owed(self, now: float, around: Surroundings, own: Header) -> Header | None:
        """The oldest version held here that is to be on this node's disk, and is not: the newest one's turn would never
        come where each version is to be saved, as it always is the next one's by then."""
        for header in self.run.versions.held.values():
            if header.id not in self.mine and self._is_to_save(now, around, header, own):
                return header
        return None

    def duty(self, header: Header, own: Header) -> Duty:
        """To save a version. Nobody waits for it, until the next step is on its way: then it comes first, or it would
        never come."""
        unit = TaskKey(header.step, "checkpoint", "save")
        needs = tuple((ref, None) for _, ref in header.state)
        return Duty(SAVE if header is own else 0, unit, SaveWork(self.run.id, header), needs, (header.id,))

    def _is_to_save(self, now: float, around: Surroundings, header: Header, own: Header) -> bool:
        run = self.run
        every = run.pipeline.checkpoint["every"]  # 0: only the last
        is_due = header.step == run.last_step or (every > 0 and header.step > 0 and header.step % every == 0)
        committed = run.ending.committed_step
        if is_due and header.step <= committed and run.me in self._savers(now, around, header):
            return True
        lonely = header is own and own.step > committed  # nobody else got as far: the disk is the second copy
        return lonely and now - run.advanced_at > COMMIT_WAIT * around.suspicion_s

    def _savers(self, now: float, around: Surroundings, header: Header) -> tuple[NodeId, ...]:
        """The first two living holders in this version's order; one more a wait, past those that cannot write."""
        late = int((now - self.run.advanced_at) / (COMMIT_WAIT * around.suspicion_s))
        holders = {*self.run.versions.holders(header.id, around.living), self.run.me}
        return ranked(f"{self.run.id}/checkpoint/{header.step}", tuple(sorted(holders)))[: SAVERS + late]

    def part(self, now: float, around: Surroundings, out: list[Action]) -> bool:
        """There is no next step here, as this node leaves or the run failed: save the newest version, so that a site
        that is switched off, or a run that is resumed, loses no step. True while that is under way. Tried once."""
        run, own = self.run, self.run.versions.own
        if any(isinstance(call.work, SaveWork) for call in run.calls.values()):
            return True
        if own is None or own.step == 0 or own.id in self.mine or self._has_parted:
            return False
        if run.me not in self._savers(now, around, own):
            return False
        self._has_parted = True
        run.slot.begin(now, self.duty(own, own), own, out)
        return True

    def saved(self, around: Surroundings, header: Header, folder: str, out: list[Action]) -> None:
        """The version lies whole on this node's disk."""
        self.mine = {name: other for name, other in self.mine.items() if other.step != header.step}  # it replaced that
        self.mine[header.id] = header
        fields = {"run": self.run.id, "step": header.step, "version": header.id, "folder": folder}
        out.append(Report("checkpoint.saved", fields))
        self.tell(around.living, out)
        self.retire(around, out)

    # Going ----------------------------------------------------------------------------------------------------------

    def retire(self, around: Surroundings, out: list[Action]) -> None:
        """Remove own checkpoints that are older than the newest `keep` which lie on enough disks. Of a run that has
        finished its last version is all that must: whoever was away then comes back with older ones."""
        enough = min(SAVERS, len(around.living))
        known = {head for node, said in self.others.items() if node in around.living for head in said}
        known |= {header.head for header in self.mine.values()}
        secure = [head for head in sorted(known) if len(self.holders(head.version, around.living)) >= enough]
        status = self.run.status
        is_over = status.state == runs.FINISHED and runs.outcome(status).get("version") in {
            head.version for head in secure
        }
        self._keep_newest(sorted(known) if is_over else secure, out)

    def retire_finished(self, out: list[Action]) -> None:
        """The run has finished, so its last version lies on enough disks."""
        self._keep_newest([header.head for header in self.mine.values()], out)

    def _keep_newest(self, secure: list[Head], out: list[Action]) -> None:
        keep: int = self.run.pipeline.checkpoint["keep"]
        newest = sorted(secure, key=preference)[:keep]
        if len(newest) < keep:
            return
        spare = [header for header in self.mine.values() if preference(header.head) > preference(newest[-1])]
        for header in spare:
            del self.mine[header.id]
            out.append(Discard(self.run.id, header.step, header.id))

    @property
    def is_lost(self) -> bool:
        """Whether there were some on this disk, and none of them can be brought back."""
        return not self.mine and bool(self.refused or self.unread)

    @property
    def story(self) -> str:
        """What became of those that cannot be, in words."""
        by_step = sorted(self.refused.values(), key=lambda entry: -entry[0].step)
        return "; ".join([*(f"step {header.step}: {why}" for header, why in by_step), *self.unread])

    def refuse(self, around: Surroundings, header: Header, why: str, out: list[Action]) -> None:
        """An own checkpoint cannot be brought back: it is passed over, and stays on the disk for people to see until
        the run passes that step again."""
        self.mine.pop(header.id, None)
        self.refused[header.id] = (header, why)
        fields = {"run": self.run.id, "step": header.step, "version": header.id, "error": why}
        out.append(Report("checkpoint.refused", fields, "error"))
        self.tell(around.living, out)
