"""Carrying at one node: a step that is trained on what an earlier one made (steps/sealing.py) has that in its books.

What was lost meanwhile is made again, from the version that made it first. Where nobody has that any more either, the
step goes on without those partitions: a run that is alive comes before one that can be found again.
"""

from __future__ import annotations

from ..names import MANIFEST, SealId, TaskKey
from ..pipeline.plan import Chain
from ..run_state.run_state import RunState
from ..steps.batch import rounds_of
from ..steps.patience import Wait
from ..steps.sealing import carried_records, carried_skips, sealed_chains
from ..steps.view import StepView
from ..versions import kept
from ..wire.steps import LOST, Seal, Skip

LOST_AFTER = 8.0  # suspicion times in which nobody works at what was lost, before the step goes on without it
WHY = "nobody who lives has its outputs, nor the version that they were sampled from"


class Carrying:
    """One run's at one node."""

    def __init__(self, state: RunState) -> None:
        self._state = state

    def reconcile(self, view: StepView) -> None:
        """Take into a step's books what the step before was trained on: as the version says that it begins with. Where
        that is not known here others may tell; after a while what is known of the pipeline's step is taken."""
        if not view.plan.is_carried or view.step.carried_to == view.trains.id:
            return
        manifest = self._trained_on(view)
        if manifest is None:
            view.step.patience.start(view.now, Wait.CARRIED)
            if view.step.patience.lasts(view.now, Wait.CARRIED) > view.suspicion_s:
                manifest = self._newest(view)
        if manifest is not None:
            self._carry(view, manifest)

    def due(self, view: StepView, chains: tuple[Chain, ...], current: Seal | None) -> list[Chain]:
        """Of a step's chains that training still reads those that are to be done again: of which something is missing
        for a suspicion time, where the version is known that they read. `current`: the manifest, if there is one."""
        if not view.plan.is_carried:
            return list(chains)
        for skip in current.skipped if current is not None else ():
            self._state.skip(skip)
        open_chains = [chain for chain in chains if self._missing(view, chain)]
        patience = view.step.patience
        patience.follow(view.now, bool(open_chains), Wait.REMADE)
        is_idle = bool(open_chains) and not self._is_worked_at(view, open_chains) and not self._is_here(view)
        patience.follow(view.now, is_idle, Wait.GONE)
        if patience.lasts(view.now, Wait.GONE) > LOST_AFTER * view.suspicion_s:
            self._give_up(view, open_chains)
            return []
        is_due = view.reads is not None and patience.lasts(view.now, Wait.REMADE) > view.suspicion_s
        return open_chains if is_due else []

    def _trained_on(self, view: StepView) -> Seal | None:
        """The manifest that the update read which made the version."""
        before = self._state.steps.get(view.step.number - 1)
        update = before.seals.get(SealId(view.trains.seal)) if before is not None else None
        return before.seals.get(SealId(update.previous)) if before is not None and update is not None else None

    def _newest(self, view: StepView) -> Seal | None:
        """The settled manifest of the latest step before that was of the same step of the pipeline."""
        first = self._state.pipeline.schedule.place(view.step.number).first
        numbers = [number for number in self._state.steps if first <= number < view.step.number]
        for step in (self._state.steps[number] for number in sorted(numbers, reverse=True)):
            if found := step.settled_of(MANIFEST):
                return min(found, key=lambda seal: (-seal.generation, seal.id))
        return None

    def _carry(self, view: StepView, manifest: Seal) -> None:
        """Who holds what a record names says of it as of what it made."""
        here = self._state.holdings.local
        for record in carried_records(manifest, view.step.number, view.trains.id):
            view.step.add(record, own=all(ref.id in here for ref in record.shards))
        for skip in carried_skips(manifest, view.step.number):
            self._state.skip(skip)
        chains = sealed_chains(view, MANIFEST)
        view.step.carry(view.trains.id, {chain.stages[0]: rounds_of(manifest, chain) for chain in chains})

    def _missing(self, view: StepView, chain: Chain) -> list[TaskKey]:
        return list(view.unfinished(chain).values())

    def _is_worked_at(self, view: StepView, chains: list[Chain]) -> bool:
        stages = {stage for chain in chains for stage in chain.stages}
        return any(
            unit.stage in stages and any(node in view.living for node in view.step.claimants(view.now, unit))
            for unit in view.step.claims
        )

    def _is_here(self, view: StepView) -> bool:
        """Whether the parameters that were sampled from lie here, so that this node can do all of it again."""
        here = self._state.holdings.local
        return view.reads is not None and all(
            ref.id in here for role, ref in view.reads.state if role.startswith(("params:", kept.PREFIX))
        )

    def _give_up(self, view: StepView, chains: list[Chain]) -> None:
        for unit in (unit for chain in chains for unit in self._missing(view, chain)):
            self._state.skip(Skip(unit, LOST, "", WHY, ()))
