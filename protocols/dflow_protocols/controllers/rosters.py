"""Rosters at one node: seeing to it that a step has one, and waiting in the smaller part of a split if asked to.

A roster is made with the update seal before the step, by whoever makes that; it is issued anew where nobody of it is
left to train.
"""

from __future__ import annotations

from ..events import Action, Report
from ..names import UPDATE
from ..run_state.outbox import Outbox
from ..run_state.run_state import MeshView, RunState
from ..steps.patience import Wait
from ..steps.roster import is_minority, make_roster
from ..steps.step import Step
from ..steps.view import StepView, step_order
from ..wire.steps import Roster, RosterPut, Seal


class Rosters:
    """Those of one run."""

    def __init__(self, state: RunState, outbox: Outbox) -> None:
        self._state = state
        self._outbox = outbox

    def check_split(self, view: StepView, out: list[Action]) -> None:
        """Note whether this node has to wait for the larger part of the step's roster."""
        members = (view.step.roster or self._state.status.roster).members
        order = step_order(self._state.id, view.step.number, members)
        paused = self._state.pipeline.on_split == "pause_minority" and is_minority(order, view.living)
        if paused != self._state.is_paused:
            if paused:
                self._state.pause()
            else:
                self._state.unpause()
            here = sum(1 for node in members if node in view.living)
            fields = {"run": self._state.id, "step": view.step.number, "here": here, "roster": len(members)}
            out.append(Report("run.paused", fields, "warning") if paused else Report("run.unpaused", fields))

    def go_on(self, now: float, mesh: MeshView, out: list[Action]) -> None:
        """A person says that who is missing will not come back: the step is dealt to those who are here, and so are
        those ahead, whose rosters were made when the others were."""
        position = self._state.position
        if position is not None and self._state.is_paused:
            for number in (position.step, *self._state.pipeline.ahead_of(position.step)):
                self._issue(self._state.step(number), mesh, out)
            self.check_split(self._state.view(now, mesh, position), out)

    def ensure(self, view: StepView, mesh: MeshView, out: list[Action]) -> bool:
        """See to it that the step has a roster with somebody alive to train."""
        step = view.step
        if step.roster is not None and any(node in mesh.on_duty for node in step.roster.trainers):
            step.patience.end(Wait.TRAINER)
            return True
        step.patience.start(view.now, Wait.TRAINER)
        if step.patience.lasts(view.now, Wait.TRAINER) <= mesh.suspicion_s:
            return step.roster is not None
        self._issue(step, mesh, out)
        for ahead in self._state.pipeline.ahead_of(step.number):
            if self._state.step(ahead).roster is None:  # as after a cold start: it would be waited for at each step
                self._issue(self._state.step(ahead), mesh, out)
        return True

    def _issue(self, step: Step, mesh: MeshView, out: list[Action]) -> None:
        """The next generation, for everybody."""
        generation = 0 if step.roster is None else step.roster.generation + 1
        roster = self._next(step.number, generation, mesh)
        step.take_roster(roster)
        step.patience.end(Wait.TRAINER)
        self._outbox.tell_all(mesh, RosterPut(self._state.id, roster), out)

    def after(self, view: StepView, seal: Seal, mesh: MeshView) -> Roster | None:
        """The roster of the next step that is not open yet, which lies beside an update seal: the one known, else one
        made now."""
        number = self._state.pipeline.rostered_with(view.step.number)
        if seal.kind != UPDATE or number is None:
            return None
        following = self._state.step(number)
        if following.roster is None:
            following.take_roster(self._next(following.number, 0, mesh))
        return following.roster

    def _next(self, number: int, generation: int, mesh: MeshView) -> Roster:
        """Members: those on duty and alive for a while (all on duty, if fewer than two are). Trainers: those about to
        hold the version."""
        on_duty = mesh.on_duty or mesh.living
        stable = mesh.stable & on_duty
        members = stable if len(stable) >= 2 else on_duty
        position = self._state.position
        parent_step = position.step if position is not None else 0
        holders = {node for node, head in self._state.versions.heads.items() if head.step >= parent_step}
        if self._state.versions.own is not None and self._state.versions.own.step >= parent_step:
            holders.add(self._state.me)
        trainers = [node for node in members if node in holders]
        if not trainers:
            trainers = [node for node in on_duty if node in holders] or list(on_duty)
        return make_roster(number, generation, {*members, *trainers}, trainers, mesh.slots)
