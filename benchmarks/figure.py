"""The form in which every benchmark answers: figures, each beside what it is measured against and its goal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Tell: TypeAlias = Callable[[Mapping[str, Any]], None]
"""Says one row of what was seen on the way, for people and for who wants more than the figures."""

DIGITS = 4


class Skipped(Exception):
    """This machine cannot run the benchmark; the text says what it lacks."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound of the ratio; of the figure itself where there is no anchor."""

    limit: float
    is_least: bool = False  # the value must not be below; else not above

    def __str__(self) -> str:
        return f"{'>=' if self.is_least else '<='} {self.limit:g}"

    def holds(self, value: float) -> bool:
        return value >= self.limit if self.is_least else value <= self.limit


@dataclass(frozen=True, slots=True)
class Figure:
    """`ours` in `unit`s. `anchor`: in words, what it is compared with; `anchor_value` in the same unit."""

    figure: str
    unit: str
    ours: float
    anchor: str | None = None
    anchor_value: float | None = None
    goal: Goal | None = None

    @property
    def ratio(self) -> float | None:
        """Ours over the anchor's; of an anchor that is nothing: 1 if ours is nothing, too, else without bound."""
        if self.anchor_value is None:
            return None
        if self.anchor_value == 0:
            return 1.0 if self.ours == 0 else float("inf")
        return self.ours / self.anchor_value

    @property
    def holds(self) -> bool:
        value = self.ours if self.ratio is None else self.ratio
        return self.goal is None or self.goal.holds(value)

    def row(self) -> dict[str, Any]:
        """As a script reads it: plain numbers, whatever counted them. A ratio without bound is null, since JSON has no
        number for it."""
        ratio = self.ratio
        return {
            "figure": self.figure,
            "unit": self.unit,
            "ours": round(float(self.ours), DIGITS),
            "anchor": self.anchor,
            "anchor_value": None if self.anchor_value is None else round(float(self.anchor_value), DIGITS),
            "ratio": None if ratio is None or ratio == float("inf") else round(float(ratio), DIGITS),
            "goal": None if self.goal is None else float(self.goal.limit),
            "holds": bool(self.holds),
        }


def table(figures: Iterable[Figure]) -> str:
    """For people: one line a figure, columns aligned."""
    rows = [("figure", "ours", "", "anchor", "ratio", "goal", "holds")]
    for each in figures:
        against = "" if each.anchor_value is None else f"{each.anchor_value:.4g} ({each.anchor})"
        ratio = "" if each.ratio is None else f"{each.ratio:.3f}"
        goal = "" if each.goal is None else str(each.goal)
        verdict = "" if each.goal is None else ("yes" if each.holds else "NO")
        rows.append((each.figure, f"{each.ours:.4g}", each.unit, against, ratio, goal, verdict))
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Lines of cells, columns below each other."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)
