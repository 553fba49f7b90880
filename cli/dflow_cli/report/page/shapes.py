"""What a drawing consists of: shapes that the template writes as SVG and escapes there; and the ticks of an axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

COLOURS = 12  # of stages, as the style sheet has them


@dataclass(frozen=True, slots=True)
class Rect:
    """`style`: classes of the style sheet. `title`: what is said of it where the pointer rests."""

    kind: ClassVar[str] = "rect"
    x: float
    y: float
    width: float
    height: float
    style: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Path:
    """`line`: in SVG's words."""

    kind: ClassVar[str] = "path"
    line: str
    style: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """`anchor`: what of it stands at `x`: start, middle, end."""

    kind: ClassVar[str] = "text"
    x: float
    y: float
    text: str
    style: str = ""
    anchor: str = "start"


Shape: TypeAlias = Rect | Path | Text


@dataclass(frozen=True, slots=True)
class Picture:
    """`about`: what it shows, for who cannot see it. `note`: under it, what is to be known of it."""

    width: float
    height: float
    about: str
    shapes: Sequence[Shape]
    note: str = ""


def polyline(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) if points else ""


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, both within them, at most `most` or so."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def number(value: float) -> str:
    """A figure at an axis: `0`, `0.25`, `1200`, `2.5e-05`."""
    if value == 0:
        return "0"
    if abs(value) < 1e-3 or abs(value) >= 1e6:
        return f"{value:.3g}"
    return f"{value:.4f}".rstrip("0").rstrip(".") if abs(value) < 100 else f"{value:.0f}"


@dataclass(frozen=True, slots=True)
class Palette:
    """Classes of colour. A stage's is fixed by its place in the pipeline; a part of its training has the same, paler.
    `stages`: name of what is timed -> (place, part)."""

    places: Mapping[str, int]

    def style(self, name: str) -> str:
        stage, dot, part = name.rpartition(".")
        if name in self.places:
            return f"s{self.places[name] % COLOURS}"
        if dot and stage in self.places:
            return f"s{self.places[stage] % COLOURS} {part}"
        return "once"
