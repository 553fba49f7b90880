"""Checkpoints: which versions lie on whose disks, who writes the next one, and when an old one may go.

Each node says all that it has, again and again, so that news may be lost and what is taken back needs no word. What
others say is hearsay: it decides who waits for whom, and which own checkpoint is spare.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from ..events import Action, Discard, Report
from ..names import NodeId, Once, TaskKey, VersionId
from ..rendezvous import ranked
from ..run_state import status as runs
from ..run_state.calls import Calls
from ..run_state.outbox import Outbox
from ..run_state.run_state import MeshView, RunState
from ..steps.duty import SAVE, Duty
from ..versions.versions import preference
from ..wire.steps import CheckpointPut, Head, Header
from ..work import SaveWork

COMMIT_WAIT = 4.0  # suspicion times for a second holder to claim a version; then the own copy on disk counts
ARRIVAL_WAIT = 1.0  # suspicion times that who is on duty is left to get to the newest version, and to say so
SAVERS = 2  # disks that a checkpoint lies on
MOST_HEADS = 64  # that one member may say to have
MOST_AWAY = 64  # members that are gone and whose checkpoints are remembered


class Checkpoints:
    """One run's checkpoints as one node knows them."""

    def __init__(
        self, state: RunState, calls: Calls, outbox: Outbox, mine: Iterable[Header], unread: Iterable[str] = ()
    ) -> None:
        """`mine`: what was found on this node's disk at its start. `unread`: what was found there and cannot be read,
        in words."""
        self._state = state
        self._calls = calls
        self._outbox = outbox
        self.mine = {header.id: header for header in mine}
        self.unread = tuple(unread)
        self.refused: dict[VersionId, tuple[Header, str]] = {}  # own ones that could not be brought back, and why
        self.others: dict[NodeId, tuple[Head, ...]] = {}  # as each said last; a node that said nothing is not in it
        self.away: dict[NodeId, tuple[Head, ...]] = {}  # what those said that have died or left since, for people
        self._has_parted = False
        self._due_at: dict[VersionId, float] = {}  # of those held here: since when it is to lie on disks, as seen here
        self._awaited: dict[NodeId, tuple[float, VersionId]] = {}  # who is to write something; since when, and what

    # What is where --------------------------------------------------------------------------------------------------

    @property
    def best(self) -> Header | None:
        """The best one on this node's disk."""
        return min(self.mine.values(), key=lambda header: preference(header.head), default=None)

    def best_elsewhere(self, living: Collection[NodeId]) -> Head | None:
        heads = [head for node, said in self.others.items() if node in living for head in said]
        return min(heads, key=preference, default=None)

    def holders(self, version: VersionId, mesh: MeshView) -> set[NodeId]:
        """Who has it on a disk that counts, this node included: not the drained, whose hosts are about to go with their
        disks, unless all are."""
        counts = mesh.on_duty or mesh.living
        said = {node: {head.version for head in heads} for node, heads in self.others.items() if node in counts}
        found = {node for node, versions in said.items() if version in versions}
        return found | ({self._state.me} & counts) if version in self.mine else found

    @property
    def are_told(self) -> bool:
        """Whether others may count on something on this disk, or have to hear that it is gone."""
        return bool(self.mine or self.refused)

    def take(self, source: NodeId, put: CheckpointPut) -> None:
        """A member says what it has on its disk; what it had in an earlier attempt may be gone."""
        if not runs.is_later(self._state.status.attempt, put.attempt):
            self.learn(source, put.heads)

    def learn(self, source: NodeId, heads: tuple[Head, ...]) -> None:
        if not set(heads) <= set(self.others.get(source, ())):
            self._awaited.pop(source, None)  # its disk takes something
        self.others[source] = heads[:MOST_HEADS]
        self.away.pop(source, None)

    def forget(self, node: NodeId) -> None:
        self._awaited.pop(node, None)
        if heads := self.others.pop(node, None):
            self.away[node] = heads
            if len(self.away) > MOST_AWAY:
                del self.away[next(iter(self.away))]

    def tell(self, nodes: Iterable[NodeId], out: list[Action]) -> None:
        """Say what lies on this disk."""
        heads = sorted((header.head for header in self.mine.values()), key=preference)[:MOST_HEADS]
        self._outbox.tell(sorted(nodes), CheckpointPut(self._state.id, self._state.status.attempt, tuple(heads)), out)

    # Writing --------------------------------------------------------------------------------------------------------

    def owed(self, now: float, mesh: MeshView, own: Header) -> Header | None:
        """The oldest version held here that is to be on this node's disk, and is not: the newest one's turn would never
        come where each version is to be saved, as it always is the next one's by then."""
        held = self._state.versions.held
        self._due_at = {version: at for version, at in self._due_at.items() if version in held}
        self._stop_waiting(now, mesh)
        for header in held.values():
            if header.id not in self.mine and self._is_to_save(now, mesh, header, own):
                return header
        return None

    def _stop_waiting(self, now: float, mesh: MeshView) -> None:
        """Who was awaited in vain for what others wrote in time need not."""
        silent = self._silent(now - COMMIT_WAIT * mesh.suspicion_s)
        done = {version for _, version in self._awaited.values() if len(self.holders(version, mesh)) >= SAVERS}
        self._awaited = {node: told for node, told in self._awaited.items() if node in silent or told[1] not in done}

    def duty(self, header: Header, own: Header) -> Duty:
        """To save a version. Nobody waits for it, until the next step is on its way: then it comes first, or it would
        never come."""
        unit = TaskKey(header.step, "checkpoint", Once("save"))
        needs = tuple((ref, None) for _, ref in header.state)
        return Duty(SAVE if header is own else 0, unit, SaveWork(self._state.id, header), needs, (header.id,))

    def _is_to_save(self, now: float, mesh: MeshView, header: Header, own: Header) -> bool:
        run = self._state
        every = run.pipeline.checkpoint["every"]  # 0: only the last
        place = run.pipeline.schedule.place(header.step)
        is_begin = place.update == 0 and place.step > 0  # of a step of the pipeline: nothing that was sampled is needed
        is_due = header.step == run.last_step or (every > 0 and is_begin and place.step % every == 0)
        committed = run.committed_step
        is_fresh = header is own and now - run.advanced_at <= ARRIVAL_WAIT * mesh.suspicion_s
        expected = mesh.on_duty if is_fresh else ()  # each would be among the first two of the few that it knows of
        if is_due and header.step <= committed and run.me in self._savers(now, mesh, header, expected):
            return not self._is_outlived(mesh, header)
        lonely = header is own and own.step > committed  # nobody else got as far: the disk is the second copy
        return lonely and now - run.advanced_at > COMMIT_WAIT * mesh.suspicion_s

    def _savers(
        self, now: float, mesh: MeshView, header: Header, expected: Collection[NodeId] = ()
    ) -> tuple[NodeId, ...]:
        """Who is to write it: of those that can and have not, as many of the first in this version's order as disks
        lack it; one more a wait, past those that do not. Who is known to write nothing comes last."""
        saved, patience_s = self.holders(header.id, mesh), COMMIT_WAIT * mesh.suspicion_s
        if len(saved) >= SAVERS:
            return ()
        late = int((now - self._due_at.setdefault(header.id, now)) / patience_s)
        writers = self.writers(mesh, header, expected) - saved
        order = ranked(f"{self._state.id}/checkpoint/{header.step}", tuple(sorted(writers)))
        silent = self._silent(now - patience_s)
        order = tuple(sorted(order, key=lambda node: node in silent))
        chosen = order[: SAVERS - len(saved) + late]
        if not expected:
            self._awaited = {node: self._awaited.get(node, (now, header.id)) for node in (*self._awaited, *chosen)}
        return chosen

    def _silent(self, since: float) -> set[NodeId]:
        """Who was to write a version and said of none that it is on its disk, as that may be full. Where steps are fast
        nobody holds a version for so long that it could be told by that one alone. Of itself a node knows better."""
        return {node for node, (at, _) in self._awaited.items() if at < since and node != self._state.me}

    def writers(self, mesh: MeshView, header: Header, expected: Collection[NodeId] = ()) -> frozenset[NodeId]:
        """Living holders of a version that are on duty and have the run's files, of which a checkpoint takes the
        tokenizer. Where there is none of them: those on duty, and if all are drained those. `expected`: those who are
        about to hold it."""
        run, several = self._state, self._state.pipeline.schedule.place(header.step).updates > 1
        passed = run.versions.passers(header, mesh.living) if several else ()  # they keep it, too
        living = frozenset((*run.versions.holders(header.id, mesh.living), *passed, *expected, run.me))
        holders = living & mesh.on_duty or living
        return holders - run.ability.without_files(run.me, holders) or holders

    def part(self, now: float, mesh: MeshView, out: list[Action]) -> bool:
        """There is no next step here, as this node leaves or the run failed: save the newest version, so that a site
        that is switched off, or a run that is resumed, loses no step. True while that is under way. Tried once; but
        what gave way to another run, and is to go on by itself, stays until it, or a better one, lies on a disk."""
        run, own = self._state, self._state.versions.own
        mesh = self._before_leaving(mesh) if run.is_leaving else mesh
        if any(isinstance(call.work, SaveWork) for call in run.calls.values()):
            return True
        own = self._to_leave(own) if own is not None else None
        if own is None or own.step == 0 or own.id in self.mine:
            return False
        duty, best = self.duty(own, own), self.best_elsewhere(mesh.living)
        gave_way = runs.yields_to(run.status) is not None and not run.is_leaving
        stays = gave_way and (best is None or preference(best) > preference(own.head))
        may_try = not self._has_parted or (stays and run.retry_at.get(duty.unit, now) <= now)
        if not may_try or run.me not in self._savers(now, mesh, own) or not self._calls.may_begin(duty.work):
            return stays
        self._has_parted = True
        self._calls.begin(now, duty, own, out)
        return True

    def _before_leaving(self, mesh: MeshView) -> MeshView:
        """With those on duty who were when this node was asked to leave, itself among them: where all were asked, each
        would else leave it to the others, or, when it has heard of all of them, write it too."""
        return replace(mesh, drained=self._state.drained_before & mesh.living)

    def _to_leave(self, own: Header) -> Header:
        """Of a step of the pipeline that makes several updates, the version that it began with: what was sampled by it
        is in no checkpoint, so from a later one the rest of the updates could not be made again. Version 0 is made
        again in any case."""
        began = self._state.began(own)
        return began if began is not None and began.id in self._state.versions.held else own

    def saved(self, mesh: MeshView, header: Header, folder: str, out: list[Action]) -> None:
        """The version lies whole on this node's disk."""
        self.mine = {name: other for name, other in self.mine.items() if other.step != header.step}  # it replaced that
        self.mine[header.id] = header
        step = self._state.told_step(header.step)
        fields = {"run": self._state.id, "step": step, "version": header.id, "folder": folder}
        out.append(Report("checkpoint.saved", fields))
        self.tell(mesh.living, out)
        self.retire(mesh, out)

    # Going ----------------------------------------------------------------------------------------------------------

    def retire(self, mesh: MeshView, out: list[Action]) -> None:
        """Remove own checkpoints that are older than the newest `keep` which lie on enough disks. Of a run that has
        finished its last version is all that must: whoever was away then comes back with older ones."""
        secure = self._secure(mesh)
        status = self._state.status
        is_over = status.state == runs.FINISHED and runs.outcome(status).get("version") in {
            head.version for head in secure
        }
        self._keep_newest(sorted(self._known(mesh)) if is_over else secure, out)

    def _known(self, mesh: MeshView) -> set[Head]:
        """What lies on living disks."""
        said = {head for node, heads in self.others.items() if node in mesh.living for head in heads}
        return said | {header.head for header in self.mine.values()}

    def _secure(self, mesh: MeshView) -> list[Head]:
        """What lies on enough of them."""
        enough = min(SAVERS, len(mesh.on_duty or mesh.living))
        known = sorted(self._known(mesh))
        return [head for head in known if len(self.holders(head.version, mesh)) >= enough]

    def _is_outlived(self, mesh: MeshView, header: Header) -> bool:
        """Whether it would go again as soon as it is written."""
        better = [head for head in self._secure(mesh) if preference(head) < preference(header.head)]
        return len(better) >= self._state.pipeline.checkpoint["keep"]

    def retire_finished(self, out: list[Action]) -> None:
        """The run has finished, so its last version lies on enough disks."""
        self._keep_newest([header.head for header in self.mine.values()], out)

    def _keep_newest(self, secure: list[Head], out: list[Action]) -> None:
        keep: int = self._state.pipeline.checkpoint["keep"]
        newest = sorted(secure, key=preference)[:keep]
        if len(newest) < keep:
            return
        spare = [header for header in self.mine.values() if preference(header.head) > preference(newest[-1])]
        for header in spare:
            del self.mine[header.id]
            out.append(Discard(self._state.id, header.step, header.id))

    @property
    def is_lost(self) -> bool:
        """Whether there were some on this disk, and none of them can be brought back."""
        return not self.mine and bool(self.refused or self.unread)

    @property
    def story(self) -> str:
        """What became of those that cannot be, in words."""
        by_step = sorted(self.refused.values(), key=lambda entry: -entry[0].step)
        return "; ".join(
            [*(f"step {self._state.told_step(header.step)}: {why}" for header, why in by_step), *self.unread]
        )

    def refuse(self, mesh: MeshView, header: Header, why: str, out: list[Action]) -> None:
        """An own checkpoint cannot be brought back: it is passed over, and stays on the disk for people to see until
        the run passes that step again."""
        self.mine.pop(header.id, None)
        self.refused[header.id] = (header, why)
        step = self._state.told_step(header.step)
        fields = {"run": self._state.id, "step": step, "version": header.id, "error": why}
        out.append(Report("checkpoint.refused", fields, "error"))
        self.tell(mesh.living, out)
