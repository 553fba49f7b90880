"""Which stages are active at which steps, and which versions a step makes, worked out once for the whole run.

A step in which several updates are made (mini-batches, epochs, several stages that train) makes a version by each. The
protocol counts versions: its step `number` is what leads from one version to the next. People count the pipeline's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import and_

from .grammar.expression import Expression, ExpressionError


@dataclass(frozen=True, slots=True)
class Timing:
    """When a stage wants to run. `sources`: stages it reads from, which were given before it. `updates`: how many it
    makes in a step in which it runs; 0: it trains nothing."""

    id: str
    when: Expression | None
    every: int
    sources: tuple[str, ...]
    updates: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a version stands in the pipeline: before update `update` of step `step`."""

    step: int
    update: int = 0
    updates: int = 1  # of that step; 1 where it trains nothing, as it makes a version all the same
    first: int = 0  # number of the version that the step began with

    @property
    def is_last(self) -> bool:
        """Whether the update behind it ends its step."""
        return self.update == self.updates - 1


@dataclass(frozen=True, slots=True)
class Schedule:
    """`active[stage][step]` is 1 where the stage runs. `firsts`: by step, the number of the version that it begins
    with; the last one is that of the final version, and so how many the run makes."""

    steps: int
    active: Mapping[str, bytes]
    firsts: Sequence[int]

    @property
    def versions(self) -> int:
        """How many the run makes, beside version 0."""
        return self.firsts[-1]

    def place(self, number: int) -> Place:
        """Of the version with this number. Raises ValueError outside [0, versions]."""
        if not 0 <= number <= self.versions:
            raise ValueError(f"version {number} of {self.versions}")
        step = bisect_right(self.firsts, number) - 1
        first = self.firsts[step]
        updates = self.firsts[step + 1] - first if step < self.steps else 1
        return Place(step, number - first, updates, first)

    def nearest(self, number: int) -> Place:
        """As `place`, of the nearest version that there is: whatever number a member says."""
        return self.place(max(0, min(number, self.versions)))

    def steps_to(self, number: int) -> int:
        """How many steps lead to the version with this number, one that goes on after it included."""
        return self.nearest(number - 1).step + 1 if number > 0 else 0

    def first(self, step: int) -> int:
        """Number of the version that a step begins with; of steps after the end the next one."""
        return self.firsts[max(0, step)] if step <= self.steps else self.versions + 1

    def begun_after(self, number: int, steps: int) -> Sequence[int]:
        """Numbers of the versions that the next so many steps begin with, seen from the version with this number; the
        final one is among them, where the run ends before."""
        following = self.nearest(number).step + 1
        return self.firsts[following : following + steps]

    def is_active(self, stage: str, step: int) -> bool:
        return self.active[stage][step] == 1

    def runs_before(self, stage: str, step: int) -> int:
        """How many steps before `step` the stage is active at."""
        return self.active[stage].count(1, 0, step)

    def runs(self, stage: str) -> int:
        return self.active[stage].count(1)

    def runs_after(self, stage: str, step: int) -> bool:
        return self.active[stage].find(1, step + 1) >= 0


class Unready(ValueError):
    """A stage is due at a step at which one that it reads from does not run, or its `when` has no value."""

    def __init__(self, stage: str, step: int, source: str, error: str = "") -> None:
        super().__init__(f"{stage} at step {step}: {error or source}")
        self.stage, self.step, self.source, self.error = stage, step, source, error


def make_schedule(steps: int, timings: Sequence[Timing]) -> Schedule:
    """Evaluate every `when` at every step. Raises Unready.

    A stage without `when` runs whenever all that it reads from does. `every` counts from the first such step.
    """
    active: dict[str, bytes] = {}
    for timing in timings:
        inputs = b"\1" * steps
        for source in timing.sources:
            inputs = bytes(map(and_, inputs, active[source]))
        wanted = inputs if timing.when is None else _evaluate(timing, timing.when, steps)
        if timing.every > 1:
            wanted = _thin(wanted, timing.every)
        missing = next((s for s, (want, there) in enumerate(zip(wanted, inputs, strict=True)) if want > there), None)
        if missing is not None:
            raise Unready(timing.id, missing, next(name for name in timing.sources if not active[name][missing]))
        active[timing.id] = wanted
    updates = {timing.id: timing.updates for timing in timings if timing.updates}
    return Schedule(steps, active, _firsts(steps, [(active[name], each) for name, each in updates.items()]))


def _firsts(steps: int, trained: Sequence[tuple[bytes, int]]) -> Sequence[int]:
    """`trained`: of each stage that trains, when, and how many updates it makes then."""
    made = [max(1, sum(each for active, each in trained if active[step])) for step in range(steps)]
    return range(steps + 1) if sum(made) == steps else tuple(accumulate(made, initial=0))


def _evaluate(timing: Timing, when: Expression, steps: int) -> bytes:
    if when.constant is not None:
        return bytes([bool(when.constant)]) * steps
    step = 0
    try:
        mask = bytearray(steps)
        for step in range(steps):
            mask[step] = bool(when.run(step))
        return bytes(mask)
    except ExpressionError as error:
        raise Unready(timing.id, step, "", str(error)) from None


def _thin(wanted: bytes, every: int) -> bytes:
    first = wanted.find(1)
    if first < 0:
        return wanted
    kept = bytearray(len(wanted))
    kept[first::every] = wanted[first::every]
    return bytes(kept)
