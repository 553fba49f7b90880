"""Ends: which versions are committed, what may be freed, and when a run is over."""

from __future__ import annotations

from ..events import Action
from ..names import MANIFEST, UPDATE
from ..run_state import references
from ..run_state import status as runs
from ..run_state.calls import Calls
from ..run_state.outbox import Outbox, is_few
from ..run_state.run_state import MeshView, RunState
from ..steps.duty import Duty
from ..steps.patience import Wait
from ..steps.sealing import chosen, is_turn, sealed_chains
from ..versions import facts
from ..versions.catch_up import FOLLOWED_STEPS
from ..wire.steps import Header, Record
from .checkpoints import COMMIT_WAIT, SAVERS, Checkpoints

BEGUN = 1  # versions kept beyond these: the one that the pipeline's step began with
PINNED = 1  # versions kept for members that copy one, beyond what is kept anyway
NO_ROOM_FOR = 4.0  # suspicion times after a refusal of room in which nothing is kept for who is that late


class Ending:
    """What one run at one node is done with."""

    def __init__(self, state: RunState, calls: Calls, checkpoints: Checkpoints, outbox: Outbox) -> None:
        self._state = state
        self._calls = calls
        self._checkpoints = checkpoints
        self._outbox = outbox
        self._swept: tuple[object, ...] = ()

    def reconcile(self, now: float, mesh: MeshView, out: list[Action]) -> list[Duty]:
        """Commit, free, save, finish."""
        state, own = self._state, self._state.versions.own
        assert own is not None
        self.commit(now, mesh)
        needed_step, pinned = self._needed_step(now, mesh, out), self._pinned(now, mesh, own)
        owed = self._checkpoints.owed(now, mesh, own)
        sweep = (state.committed_step, needed_step, pinned, own.id, owed, state.catch_up.target, state.refreshed_at)
        if sweep != self._swept:
            self._swept = sweep
            self._free(needed_step, pinned, owed, out)
            self._checkpoints.retire(mesh, out)
        duties = [self._checkpoints.duty(owed, own)] if owed is not None else []
        if own.step == state.last_step and state.catch_up.target is None:
            self._finish(now, mesh, own, out)
        return duties

    # Commit and free ------------------------------------------------------------------------------------------------

    def commit(self, now: float, mesh: MeshView) -> None:
        """Of the versions held here, up to the own one, the newest that there is evidence of."""
        run, own = self._state, self._state.versions.own
        for header in reversed(run.versions.held.values()):
            if header.step <= run.committed_step:
                break
            step = run.steps.get(header.step - 1)
            trainers = step.roster.trainers if step is not None and step.roster is not None else mesh.living
            if run.versions.is_committed(header, mesh.on_duty.intersection(trainers), mesh.living) or (
                header is own and self._is_own_copy_enough(now, mesh, header)
            ):
                run.commit(header.step)
                break

    def _is_own_copy_enough(self, now: float, mesh: MeshView, own: Header) -> bool:
        waited = now - self._state.advanced_at > COMMIT_WAIT * mesh.suspicion_s
        return waited and own.id in self._checkpoints.mine

    def _needed_step(self, now: float, mesh: MeshView, out: list[Action]) -> int:
        """The step whose version is the oldest that is needed: the committed one if all on duty have it or a later
        one, else its parent, from which a late node makes it."""
        versions, committed, me = self._state.versions, self._state.committed_step, self._state.me
        held = next((header for header in versions.held.values() if header.step == committed), None)
        if held is None:
            return committed - 1
        there = versions.who_got_to(held)
        if mesh.on_duty <= there | {me}:
            if versions.found_everywhere(committed):
                self._outbox.tell_arrival(self._state.view(now, mesh, held), mesh, out)
            return committed
        if is_few(mesh):
            return committed - 1  # who came since a replica said that all have it speaks for itself
        step = self._state.steps.get(committed)
        if step is None or step.roster is None:
            return committed - 1
        replicas = self._state.view(now, mesh, held).replicas
        is_said = any(node in there and versions.everywhere.get(node, 0) >= committed for node in replicas)
        return committed if is_said else committed - 1

    def _pinned(self, now: float, mesh: MeshView, own: Header) -> Header | None:
        """The version that a late member copies or goes on from: the oldest of them, of the own chain, that is not too
        far back. None where room is short."""
        state, versions = self._state, self._state.versions
        if state.refused_at >= 0.0 and now - state.refused_at <= NO_ROOM_FOR * mesh.suspicion_s:
            return None
        oldest = state.committed_step - FOLLOWED_STEPS
        told = [head.version for node, head in versions.pins.items() if node in mesh.on_duty]
        known = [versions.headers[version] for version in told if version in versions.headers]
        found = [each for each in known if each.step >= oldest and versions.descends(own.id, each)]
        return min(found, key=lambda header: (header.step, header.id), default=None)

    def _free(self, needed_step: int, pinned: Header | None, owed: Header | None, out: list[Action]) -> None:
        """Inputs and blocks of a step go when its version is committed; its slices and the version before, which a
        late node needs to catch up, when none is late, or one step later; those that follow a pinned version, with
        that one, as long as it is pinned. A version that is still to be saved stays that long, too. Where a step of the
        pipeline makes several updates, the version that it began with, and what was made with that, stay until the
        last of them is committed; the books of updates between go, as a later manifest names the same. What nothing
        refers to any more goes with them."""
        state, committed = self._state, self._state.committed_step
        versions, own = state.versions, state.versions.own
        first = state.pipeline.schedule.place(committed).first
        followed_from = min(committed - 1, pinned.step) if pinned is not None else committed - 1
        kept_from = min(first, followed_from)
        versions.keep_only(
            [
                header.id
                for header in versions.held.values()
                if header in (own, pinned)
                or (header is owed and header.step >= committed - 1)
                or (own is not None and self._is_kept(header, needed_step, first) and versions.descends(own.id, header))
            ]
        )  # one that lost the fork choice goes as soon as the winner is whole
        state.free_before(kept_from)
        state.free_amid(range(first + 1, self._carried_to(first, followed_from)))
        needed: list[Record] = []
        for number, step in state.steps.items():
            if number >= committed:
                needed += [*step.all_records(), *step.kept_back.values()]
                continue
            is_last = number == committed - 1 and needed_step == committed and pinned is None
            kinds = [MANIFEST] if number >= first else []
            kinds += [UPDATE] if number >= followed_from and not is_last else []
            needed += [record for seal in step.seals.values() if seal.kind in kinds for record in seal.entries]
        references.keep_only(state, needed, out)
        versions.prune(kept_from - 1, [call.parent for call in state.calls.values() if call.parent is not None])
        versions.forget_set_aside()
        state.catch_up.forget_stalls()

    def _carried_to(self, first: int, followed_from: int) -> int:
        """The newest update up to there, of the own step of the pipeline, of which the manifest is known here."""
        position = self._state.position
        newest = min(followed_from, position.step - 1 if position is not None else first)
        steps = self._state.steps.items()
        known = [number for number, step in steps if first < number <= newest and step.settled_of(MANIFEST)]
        return max(known, default=first)

    def _is_kept(self, header: Header, needed_step: int, first: int) -> bool:
        """Of the own chain: what those who are late need, and what the step of the pipeline began with."""
        return header.step >= needed_step or header.step == first

    # The end --------------------------------------------------------------------------------------------------------

    def _finish(self, now: float, mesh: MeshView, own: Header, out: list[Action]) -> None:
        """Finished: all steps done, the last evaluation sealed, the version committed and on enough disks."""
        run = self._state
        view = run.view(now, mesh, own)
        final = chosen(view, run.versions, UPDATE, own.id) if sealed_chains(view, UPDATE) else None
        if sealed_chains(view, UPDATE) and final is None:
            return
        saved = self._checkpoints.holders(own.id, mesh)
        writers = self._checkpoints.writers(mesh, own) | saved  # whose claim is older than its word of its disk, too
        tried_all = now - run.advanced_at > (1 + len(writers)) * COMMIT_WAIT * mesh.suspicion_s
        if own.step > run.committed_step or len(saved) < (1 if tried_all else min(SAVERS, len(writers))):
            return
        view.step.patience.start(view.now, Wait.TURN, "finish")
        if not is_turn(view, "finish"):
            return
        if run.is_paused:
            return
        steps = run.pipeline.schedule.steps
        settled = facts.merge(own.facts, facts.evaluated(run.pipeline, final, steps) if final is not None else ())
        self._outbox.end(runs.FINISHED, {**facts.named(own), "step": steps, "facts": dict(settled)}, mesh, out)

    def wind_up(self, now: float, mesh: MeshView, out: list[Action]) -> None:
        """The run is over: stop its calls, save the newest version if it failed and may be resumed, free its shards."""
        if self._state.is_cleared:
            return
        self._calls.stop_all(out, but_saves=True)
        if self._state.status.state != runs.FAILED or not self._checkpoints.part(now, mesh, out):
            self.clear(out)

    def clear(self, out: list[Action]) -> None:
        """Stop the run's calls and free its shards, once."""
        state = self._state
        self._calls.stop_all(out)
        state.holdings.drop(state.holdings.all_here(), out)
        if state.status.state == runs.FINISHED:
            self._checkpoints.retire_finished(out)
        state.clear()
