"""Shrinking: of the faults that led to a violation the fewest that still do, as a story and as a case for a test."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..faults import Fault
from ..invariants import Violation
from .choice import USUAL, Choice
from .swarm import DrawnWorld


@dataclass(frozen=True)
class Shrunk:
    """`only`: places of the faults that are left, among all that the seed draws. `faults`: these, and when."""

    seed: int
    choice: Choice
    only: tuple[int, ...]
    faults: tuple[tuple[float, Fault], ...]
    violation: Violation

    @property
    def story(self) -> str:
        """The faults that are left, and the end of what happened then."""
        left = [f"{at:9.4f} {fault}" for at, fault in self.faults] or ["nothing has to strike"]
        return "\n".join([f"faults that are left ({len(left) if self.faults else 0}):", *left, str(self.violation)])

    @property
    def case(self) -> str:
        """To be pasted into a test."""
        choice = "" if self.choice == USUAL else f", {self.choice}"
        told = "; ".join(f"{fault} at {at:.2f} s" for at, fault in self.faults) or "nothing strikes"
        return "\n".join(
            [
                f"def test_seed_{self.seed}_keeps_{self.violation.invariant}() -> None:",
                f'    """{told}."""',
                f"    live_through({self.seed}{choice}, only={self.only})",
            ]
        )


def shrink(seed: int, choice: Choice, invariant: str) -> Shrunk | None:
    """Take away one fault after another while the same invariant is still broken. None if it is not, as when two lives
    of the seed differ."""
    found = _live(seed, choice, None)
    if found is None or found.violation.invariant != invariant:
        return None
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for index in found.only:
            fewer = _live(seed, choice, [each for each in found.only if each != index])
            if fewer is not None and fewer.violation.invariant == invariant:
                found, is_smaller = fewer, True
    return found


def _live(seed: int, choice: Choice, only: Collection[int] | None) -> Shrunk | None:
    """The world in which just these faults strike, if it breaks a promise."""
    drawn = DrawnWorld(seed, choice, only=only)
    try:
        drawn.live()
    except Violation as violation:
        planned = drawn.world.planned
        left = tuple(range(len(planned)) if only is None else sorted(only))
        return Shrunk(seed, choice, left, tuple(planned[index] for index in left), violation)
    return None
