"""Ends: which versions are committed, what may be freed, and when a run is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..events import Action, Report, Stop
from ..run_state import references
from ..run_state import status as runs
from ..steps.duties import Duty
from ..steps.sealing import UPDATE, chosen, is_turn, sealed_chains
from ..versions import facts
from ..wire.steps import Header, Record
from ..work import SaveWork
from .checkpoints import COMMIT_WAIT, SAVERS

if TYPE_CHECKING:
    from ..runs.run import Run, Surroundings


class Ending:
    """What one run at one node is done with."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.committed_step = 0
        self.freed_before = 0  # books of earlier steps are gone
        self.is_cleared = False
        self._swept: tuple[object, ...] = ()

    def look(self, now: float, around: Surroundings, out: list[Action]) -> list[Duty]:
        """Commit, free, save, finish."""
        run, own = self.run, self.run.versions.own
        assert own is not None
        self._commit(now, around, own)
        needed_step = self._needed_step(around)
        owed = run.checkpoints.owed(now, around, own)
        sweep = (self.committed_step, needed_step, own.id, owed, run.follower.target, run.postbox.refreshed_at)
        if sweep != self._swept:
            self._swept = sweep
            self._free(needed_step, owed, out)
            run.checkpoints.retire(around, out)
        duties = [run.checkpoints.duty(owed, own)] if owed is not None else []
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
        return waited and own.id in self.run.checkpoints.mine

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

    def _free(self, needed_step: int, owed: Header | None, out: list[Action]) -> None:
        """Inputs and blocks of a step go when its version is committed; its slices and the version before, which a
        late node needs to catch up, when none is late, or one step later. A version that is still to be saved stays
        that long, too. What nothing refers to any more goes with them."""
        run, committed = self.run, self.committed_step
        own = run.versions.own
        run.versions.held = {
            header.id: header
            for header in run.versions.held.values()
            if header is own
            or (header is owed and header.step >= committed - 1)
            or (own is not None and header.step >= needed_step and run.versions.descends(own.id, header))
        }  # one that lost the fork choice goes as soon as the winner is whole
        needed: list[Record] = []
        for number in [number for number in run.steps if number < committed - 1]:
            del run.steps[number]
        for number, step in run.steps.items():
            records = [*step.all_records(), *step.kept_back.values()]
            if number == committed - 1 and needed_step == committed:
                continue
            if number == committed - 1:
                records = [record for seal in step.seals.values() if seal.kind == UPDATE for record in seal.entries]
            needed += records
        references.keep_only(run, needed, out)
        self.freed_before = max(self.freed_before, committed - 1)
        run.versions.prune(committed - 2, [call.parent for call in run.calls.values() if call.parent is not None])
        run.failures.forget_steps_before(committed - 1)
        run.alarm.forget_steps_before(committed - 1)
        run.quarantine.forget_steps_before(committed - 1)
        claimed = set(run.versions.heads.values())
        run.versions.set_aside = {head: until for head, until in run.versions.set_aside.items() if head in claimed}
        run.follower.stalls = {head: count for head, count in run.follower.stalls.items() if head in claimed}
        run.retry_at = {unit: at for unit, at in run.retry_at.items() if unit.step >= committed - 1}

    # The end --------------------------------------------------------------------------------------------------------

    def _finish(self, now: float, around: Surroundings, own: Header, out: list[Action]) -> None:
        """Finished: all steps done, the last evaluation sealed, the version committed and on enough disks."""
        run = self.run
        desk = run.desk(now, around, own)
        final = chosen(desk, run.versions, UPDATE, own.id) if sealed_chains(desk, UPDATE) else None
        if sealed_chains(desk, UPDATE) and final is None:
            return
        saved = run.checkpoints.holders(own.id, around.living)
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

    def end(self, state: str, outcome: dict[str, Any], around: Surroundings, out: list[Action]) -> None:
        """Move the run's status up, and tell everybody."""
        run = self.run
        run.status = runs.ended(run.status, state, outcome)
        out.append(Report("run.ended", {"run": run.id, "state": run.status.state, **runs.outcome(run.status)}))
        out.append(run.persist())
        run.postbox.tell_all(around, run.status, out)

    def wind_up(self, now: float, around: Surroundings, out: list[Action]) -> None:
        """The run is over: stop its calls, save the newest version if it failed and may be resumed, free its shards."""
        if self.is_cleared:
            return
        run = self.run
        stopped = [call for call, running in run.calls.items() if not isinstance(running.work, SaveWork)]
        for call in stopped:
            del run.calls[call]
            out.append(Stop(call))
        if run.status.state != runs.FAILED or not run.checkpoints.part(now, around, out):
            self.clear(out)

    def clear(self, out: list[Action]) -> None:
        """Stop the run's calls and free its shards, once."""
        run = self.run
        out.extend(Stop(call) for call in run.calls)
        run.calls.clear()
        run.holdings.drop(run.holdings.all_here(), out)
        if run.status.state == runs.FINISHED:
            run.checkpoints.retire_finished(out)
        run.steps.clear()
        run.follower.target = None
        self.is_cleared = True
