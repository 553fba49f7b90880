"""Shrinking: of the faults that led to a violation the fewest and shortest that still do, as a story and as a test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ..faults import Fault, Planned
from ..invariants import Violation
from .choice import USUAL, Choice
from .chronicle import chronicle
from .swarm import DrawnWorld

SHORTEST_S = 0.1
PACKAGE = __name__.rpartition(".drawn")[0]


@dataclass(frozen=True)
class Shrunk:
    """`faults`: those that are left, and when they strike. `chronicle`: what happened then."""

    seed: int
    choice: Choice
    faults: tuple[Planned, ...]
    violation: Violation
    chronicle: tuple[str, ...]

    @property
    def story(self) -> str:
        left = [f"{moment} {fault}" for moment, fault in self.faults] or ["nothing has to strike"]
        return "\n".join([f"faults that are left ({len(self.faults)}):", *left, "", *self.chronicle, self.what])

    @property
    def what(self) -> str:
        """The last lines of the violation: what is broken, and how to see all of it again."""
        return "\n".join(str(self.violation).splitlines()[-2:])

    @property
    def case(self) -> str:
        """A test, with all that it imports."""
        kinds = {"Planned", *(type(each).__name__ for planned in self.faults for each in planned)}
        uses = [f"from {PACKAGE}.drawn.swarm import live_through"]
        choice = ""
        if self.choice != USUAL:
            uses.insert(0, f"from {PACKAGE}.drawn.choice import Choice")
            told = {name: value for name, value in asdict(self.choice).items() if value != getattr(USUAL, name)}
            choice = f", Choice({', '.join(f'{name}={value!r}' for name, value in told.items())})"
        uses.append(f"from {PACKAGE}.faults import {', '.join(sorted(kinds))}")
        planned = [f"        ({moment}, {fault})," for moment, fault in self.faults]
        text = "\n".join(
            [
                *(*uses, "", ""),
                f"def test_seed_{self.seed}_keeps_{self.violation.invariant}() -> None:",
                f'    """{self.what.splitlines()[0]}."""',
                f"    faults: list[Planned] = [{'' if planned else ']'}",
                *((*planned, "    ]") if planned else ()),
                f"    live_through({self.seed}{choice}, faults=faults)",
            ]
        )
        return text.replace("'", '"')


def shrink(seed: int, choice: Choice, invariant: str) -> Shrunk | None:
    """Take away one fault after another, then make those that are left shorter, while the same invariant is still
    broken. None if it is not, as when two lives of the seed differ."""
    found = _live(seed, choice, None, invariant)
    if found is None:
        return None
    index = 0
    while index < len(found.faults):
        less = _live(seed, choice, _with(found.faults, index), invariant)
        found, index = (found, index + 1) if less is None else (less, index)
    for index in range(len(found.faults)):
        found = _shortened(found, index)
    return found


def _shortened(found: Shrunk, index: int) -> Shrunk:
    """One of its faults lasts half as long, and half of that, while the same is broken."""
    moment, fault = found.faults[index]
    for shorter in _halved(fault):
        faults = _with(found.faults, index, (moment, shorter))
        less = _live(found.seed, found.choice, faults, found.violation.invariant)
        if less is not None:
            return _shortened(less, index)
    return found


def _with(faults: Sequence[Planned], index: int, *others: Planned) -> tuple[Planned, ...]:
    """With these in the place of one."""
    return (*faults[:index], *others, *faults[index + 1 :])


def _halved(fault: Any) -> Iterator[Fault]:
    """With half of each time that it tells, unless that is short."""
    for name in (field.name for field in fields(fault) if field.name.endswith(("seconds", "_s"))):
        seconds = getattr(fault, name)
        if seconds is not None and seconds >= 2 * SHORTEST_S:
            yield replace(fault, **{name: seconds / 2})


def _live(seed: int, choice: Choice, faults: Sequence[Planned] | None, invariant: str) -> Shrunk | None:
    """The world in which just these faults strike, or those that are drawn, if it breaks this invariant."""
    drawn = DrawnWorld(seed, choice, faults=faults)
    drawn.world.trace.keep_all()
    try:
        drawn.live()
    except Violation as violation:
        if violation.invariant == invariant:
            return Shrunk(seed, choice, drawn.planned, violation, tuple(chronicle(drawn.world)))
    return None
