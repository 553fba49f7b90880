"""Ends: which versions are committed, what may be freed, who saves a checkpoint, and when a run is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import facts, runs
from .duties import SAVE, Duty
from .machine import Action, Report, Stop
from .names import NodeId, TaskKey, VersionId
from .rendezvous import ranked
from .sealing import UPDATE, chosen, is_turn, sealed_chains
from .wire.steps import CheckpointPut, Header
from .work import SaveWork

if TYPE_CHECKING:
    from .run import Run, Surroundings

COMMIT_WAIT = 4.0  # suspicion times for a second holder to claim a version; then the own copy on disk counts
SAVERS = 2  # disks that a checkpoint lies on


class Ending:
    """What one run at one node is done with."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.committed_step = 0
        self.freed_before = 0  # books of earlier steps are gone
        self.checkpoints: dict[VersionId, set[NodeId]] = {}
        self.is_cleared = False
        self._swept: tuple[object, ...] = ()

    def look(self, now: float, around: Surroundings, out: list[Action]) -> list[Duty]:
        """Commit, free, save, finish."""
        run, own = self.run, self.run.versions.own
        assert own is not None
        self._commit(now, around, own)
        needed_step = self._needed_step(around)
        sweep = (self.committed_step, needed_step, own.id, run.follower.target, run.postbox.refreshed_at)
        if sweep != self._swept:
            self._swept = sweep
            self._free(needed_step, out)
        duties = self._saves(now, around, own)
        if own.step == self.run.last_step and self.run.follower.target is None:
            self._finish(now, around, own, out)
        return duties

    # Commit and free ------------------------------------------------------------------------------------------------

    def _commit(self, now: float, around: Surroundings, own: Header) -> None:
        run = self.run
        for header in reversed(run.versions.held.values()):
            if header.step <= self.committed_step:
                break
            step = run.steps.get(header.step - 1)
            trainers = step.roster.trainers if step is not None and step.roster is not None else around.living
            if run.versions.is_committed(header, trainers, around.living) or (
                header is own and self._is_own_copy_enough(now, around, own)
            ):
                self.committed_step = header.step
                break

    def _is_own_copy_enough(self, now: float, around: Surroundings, own: Header) -> bool:
        waited = now - self.run.advanced_at > COMMIT_WAIT * around.suspicion_s
        return waited and self.run.me in self.checkpoints.get(own.id, ())

    def _needed_step(self, around: Surroundings) -> int:
        """The step whose version is the oldest that is needed: the committed one if all who live have it or a later
        one, else its parent, from which a late node makes it."""
        versions, committed = self.run.versions, self.committed_step
        held = next((header for header in versions.held.values() if header.step == committed), None)
        heads = versions.heads
        if held is not None and all(
            node == self.run.me or (node in heads and versions.descends(heads[node].version, held))
            for node in around.living
        ):
            return committed
        return committed - 1

    def _free(self, needed_step: int, out: list[Action]) -> None:
        """Inputs and blocks of a step go when its version is committed; its slices and the version before, which a
        late node needs to catch up, when none is late, or one step later. What nothing refers to any more goes too."""
        run, committed = self.run, self.committed_step
        own = run.versions.own
        run.versions.held = {
            header.id: header
            for header in run.versions.held.values()
            if header is own
            or (own is not None and header.step >= needed_step and run.versions.descends(own.id, header))
        }  # one that lost the fork choice goes as soon as the winner is whole
        versions = [*run.versions.held.values(), *([run.follower.target] if run.follower.target else [])]
        keep = {ref.id for header in versions for _, ref in header.state}
        keep |= {ref.id for ref in run.postbox.keep_for}
        for number in [number for number in run.steps if number < committed - 1]:
            del run.steps[number]
        for number, step in run.steps.items():
            records = step.all_records()
            if number == committed - 1 and needed_step == committed:
                continue
            if number == committed - 1:
                records = [record for seal in step.seals.values() if seal.kind == UPDATE for record in seal.entries]
            keep |= {ref.id for record in records for ref in record.shards}
        run.holdings.drop([shard for shard in run.holdings.all_here() if shard not in keep], out)
        run.holdings.know_only(keep)
        self.freed_before = max(self.freed_before, committed - 1)
        run.versions.prune(committed - 2)
        run.failures.forget_steps_before(committed - 1)
        known = run.versions.headers
        run.versions.set_aside = {v: until for v, until in run.versions.set_aside.items() if v in known}
        run.follower.stalls = {v: count for v, count in run.follower.stalls.items() if v in known}
        run.retry_at = {unit: at for unit, at in run.retry_at.items() if unit.step >= committed - 1}
        self.checkpoints = {v: nodes for v, nodes in self.checkpoints.items() if v in run.versions.headers}

    # Checkpoints ----------------------------------------------------------------------------------------------------

    def _saves(self, now: float, around: Surroundings, own: Header) -> list[Duty]:
        """The newest version held here that is to be on this node's disk. Nobody waits for it, until the next step
        is on its way: then it comes first, or it would never come."""
        for header in reversed(self.run.versions.held.values()):
            if self.run.me not in self.checkpoints.get(header.id, ()) and self._is_to_save(now, around, header, own):
                unit = TaskKey(header.step, "checkpoint", "save")
                work = SaveWork(header.step, header.id, header.state)
                needs = tuple((ref, None) for _, ref in header.state)
                return [Duty(SAVE if header is own else 0, unit, work, needs, (header.id,))]
        return []

    def _is_to_save(self, now: float, around: Surroundings, header: Header, own: Header) -> bool:
        run = self.run
        every = run.pipeline.checkpoint["every"]  # 0: only the last
        is_due = header.step == run.last_step or (every > 0 and header.step > 0 and header.step % every == 0)
        if is_due and header.step <= self.committed_step and run.me in self._savers(now, around, header):
            return True
        lonely = header is own and own.step > self.committed_step  # nobody else got as far: the disk is the second copy
        return lonely and now - run.advanced_at > COMMIT_WAIT * around.suspicion_s

    def _savers(self, now: float, around: Surroundings, own: Header) -> tuple[NodeId, ...]:
        """The first two living holders in this version's order; one more a wait, past those that cannot write."""
        late = int((now - self.run.advanced_at) / (COMMIT_WAIT * around.suspicion_s))
        holders = {*self.run.versions.holders(own.id, around.living), self.run.me}
        return ranked(f"{self.run.id}/checkpoint/{own.step}", tuple(sorted(holders)))[: SAVERS + late]

    def saved(self, version: VersionId, around: Surroundings, out: list[Action]) -> None:
        header = self.run.versions.headers.get(version)
        if header is not None:
            self.checkpoints.setdefault(version, set()).add(self.run.me)
            message = CheckpointPut(self.run.id, version, header.step)
            self.run.postbox.tell_all(around, message, out)

    # The end --------------------------------------------------------------------------------------------------------

    def _finish(self, now: float, around: Surroundings, own: Header, out: list[Action]) -> None:
        """Finished: all steps done, the last evaluation sealed, the version committed and on enough disks."""
        run = self.run
        desk = run.desk(now, around, own)
        final = chosen(desk, run.versions, UPDATE, own.id) if sealed_chains(desk, UPDATE) else None
        if sealed_chains(desk, UPDATE) and final is None:
            return
        saved = [node for node in self.checkpoints.get(own.id, ()) if node in around.living]
        holders = {*run.versions.holders(own.id, around.living), run.me}
        tried_all = now - run.advanced_at > (1 + len(holders)) * COMMIT_WAIT * around.suspicion_s
        if own.step > self.committed_step or len(saved) < (1 if tried_all else min(SAVERS, len(holders))):
            return
        if not is_turn(desk, "finish"):
            return
        if run.rosters.is_paused:
            return
        settled = facts.merge(own.facts, facts.evaluated(run.pipeline, final) if final is not None else ())
        self.end(runs.FINISHED, {**facts.named(own), "facts": dict(settled)}, around, out)

    def check_failures(self, around: Surroundings, out: list[Action]) -> None:
        """Fail the run if what is known of its failures says so."""
        fatal = self.run.failures.fatal(around.living) if self.run.is_active else None
        if fatal is not None:
            self.end(runs.FAILED, {"error": f"{fatal.task} failed: {fatal.error}"}, around, out)

    def end(self, state: str, outcome: dict[str, Any], around: Surroundings, out: list[Action]) -> None:
        """Move the run's status up, and tell everybody."""
        run = self.run
        run.status = runs.ended(run.status, state, outcome)
        out.append(Report("run.ended", {"run": run.id, "state": run.status.state, **runs.outcome(run.status)}))
        out.append(run.persist())
        run.postbox.tell_all(around, run.status, out)

    def clear(self, out: list[Action]) -> None:
        """The run is over: stop its calls and free its shards. Once."""
        run = self.run
        out.extend(Stop(call) for call in run.calls)
        run.calls.clear()
        run.holdings.drop(run.holdings.all_here(), out)
        run.steps.clear()
        run.follower.target = None
        self.is_cleared = True
