"""Which stages are active at which steps, worked out once for the whole run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import and_

from .grammar.expression import Expression, ExpressionError


@dataclass(frozen=True, slots=True)
class Timing:
    """When a stage wants to run. `sources`: stages it reads from, which were given before it."""

    id: str
    when: Expression | None
    every: int
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Schedule:
    """`active[stage][step]` is 1 where the stage runs."""

    steps: int
    active: Mapping[str, bytes]

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


def make_schedule(steps: int, timings: Iterable[Timing]) -> Schedule:
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
    return Schedule(steps, active)


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
