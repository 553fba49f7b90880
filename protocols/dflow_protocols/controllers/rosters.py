"""Rosters at one node: seeing to it that a step has one, and waiting in the smaller part of a split if asked to.

A roster is made with the update seal before the step, by whoever makes that; it is issued anew where nobody of it is
left to train.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..events import Action, Report
from ..steps.duties import Desk, step_order
from ..steps.roster import make_roster
from ..steps.sealing import UPDATE
from ..steps.split import is_minority
from ..steps.step import Step
from ..wire.steps import Roster, RosterPut, Seal

if TYPE_CHECKING:
    from ..runs.run import Run, Surroundings


class Rosters:
    """Those of one run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.is_paused = False  # in the smaller part of a split, where the pipeline asks that this part waits

    def mind_split(self, desk: Desk, out: list[Action]) -> None:
        """Note whether this node has to wait for the larger part of the step's roster."""
        members = (desk.step.roster or self.run.status.roster).members
        order = step_order(self.run.id, desk.step.number, members)
        paused = self.run.pipeline.on_split == "pause_minority" and is_minority(order, desk.living)
        if paused != self.is_paused:
            self.is_paused = paused
            here = sum(1 for node in members if node in desk.living)
            fields = {"run": self.run.id, "step": desk.step.number, "here": here, "roster": len(members)}
            out.append(Report("run.paused", fields, "warning") if paused else Report("run.unpaused", fields))

    def go_on(self, now: float, around: Surroundings, out: list[Action]) -> None:
        """A person says that who is missing will not come back: the step is dealt to those who are here."""
        position = self.run.position
        if position is not None and self.is_paused:
            step = self.run.step(position.step)
            self._issue(step, around, out)
            self.mind_split(self.run.desk(now, around, position), out)

    def has_one(self, desk: Desk, around: Surroundings, out: list[Action]) -> bool:
        """See to it that the step has a roster with somebody alive to train."""
        step = desk.step
        if step.roster is not None and any(node in around.living for node in step.roster.trainers):
            step.since.pop("roster", None)
            return True
        if step.waited(desk.now, "roster") <= around.suspicion_s:
            return step.roster is not None
        self._issue(step, around, out)
        return True

    def _issue(self, step: Step, around: Surroundings, out: list[Action]) -> None:
        """The next generation, for everybody."""
        generation = 0 if step.roster is None else step.roster.generation + 1
        roster = self._next(step.number, generation, around)
        step.take_roster(roster)
        step.since.pop("roster", None)
        self.run.postbox.tell_all(around, RosterPut(self.run.id, roster), out)

    def after(self, desk: Desk, seal: Seal, around: Surroundings) -> Roster | None:
        """The next step's roster, which lies beside an update seal: the one known, else one made now."""
        if seal.kind != UPDATE or desk.step.number >= self.run.last_step:
            return None
        following = self.run.step(desk.step.number + 1)
        if following.roster is None:
            following.take_roster(self._next(following.number, 0, around))
        return following.roster

    def _next(self, number: int, generation: int, around: Surroundings) -> Roster:
        """Members: those alive for a while (all, if fewer than two are). Trainers: those about to hold the version."""
        members = around.stable if len(around.stable) >= 2 else around.living
        position = self.run.position
        parent_step = position.step if position is not None else 0
        holders = {node for node, head in self.run.versions.heads.items() if head.step >= parent_step}
        if self.run.versions.own is not None and self.run.versions.own.step >= parent_step:
            holders.add(self.run.me)
        trainers = [node for node in members if node in holders]
        if not trainers:
            trainers = [node for node in around.living if node in holders] or list(around.living)
        return make_roster(number, generation, {*members, *trainers}, trainers, around.slots)
