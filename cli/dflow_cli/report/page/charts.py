"""Curves by step, and stacked seconds by step: small pictures with axes, made from figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ..loads import StepPath
from .shapes import Palette, Path, Picture, Rect, Shape, Text, number, polyline, ticks

WIDTH, HEIGHT = 380.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 54.0, 12.0, 14.0, 34.0
MOST_POINTS = 800  # of a curve; more are told as means of neighbours

Points = Sequence[tuple[float, float]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Curve:
    """`points`: (step, figure) in step order. `dots`: each point is shown, as of what is measured now and then."""

    label: str
    points: Points
    style: str
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Scale:
    """From figures to places in a picture."""

    low: float
    high: float
    first: float
    last: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low
        return self.first + (value - self.low) / span * (self.last - self.first) if span else self.first


def curves(
    about: str,
    drawn: Sequence[Curve],
    *,
    band: Sequence[tuple[float, float, float]] = (),
    zero: bool = False,
    most: float | None = None,
) -> Picture | None:
    """None where there is nothing to draw. `band`: (step, low, high). `zero`: the axis begins at 0; `most`: it ends
    there, whatever the figures are."""
    shown = [Curve(it.label, points, it.style, it.dots) for it in drawn if (points := _finite(it.points))]
    if not shown:
        return None
    values = [value for it in shown for _, value in it.points] + [end for _, *ends in band for end in ends]
    across, up = _scales([step for it in shown for step, _ in it.points], values, zero, most)
    shapes: list[Shape] = _axes(across, up, "step")
    thinned = any(len(it.points) > MOST_POINTS for it in shown)
    if band:
        edge = [(across(step), up(high)) for step, _, high in _thin(band)]
        edge += [(across(step), up(low)) for step, low, _ in reversed(_thin(band))]
        shapes.append(Path(polyline(edge) + "Z", f"band {shown[0].style}"))
    for it in shown:
        places = [(across(step), up(value)) for step, value in _thin(it.points)]
        title = f"{it.label}: {number(it.points[-1][1])} at step {number(it.points[-1][0])}"
        shapes.append(Path(polyline(places), f"line {it.style}", title))
        shapes += [
            Rect(x - 2.5, y - 2.5, 5, 5, f"dot {it.style}", f"step {number(step)}: {number(value)}")
            for (x, y), (step, value) in (zip(places, it.points, strict=True) if it.dots or len(places) == 1 else ())
        ]
    note = f"each point is the mean of neighbouring steps: there are more than {MOST_POINTS}" if thinned else ""
    return Picture(WIDTH, HEIGHT, about, shapes, note)


def stacked(about: str, steps: Sequence[StepPath], names: Sequence[str], palette: Palette) -> Picture | None:
    """A column a step (or a mean of several): its critical path by stage, waiting on top."""
    if not steps:
        return None
    groups = _groups(steps, int(WIDTH - LEFT - RIGHT) // 3)
    tops = [sum(it.total for it in group) / len(group) for group in groups]
    first, last = steps[0].step, steps[-1].step
    across = Scale(first, last + 1, LEFT, WIDTH - RIGHT)
    up = Scale(0.0, max(tops) or 1.0, HEIGHT - BOTTOM, TOP)
    shapes: list[Shape] = _axes(across, up, "step")
    for group in groups:
        begin, end = across(group[0].step), across(group[-1].step + 1)
        base = 0.0
        for name in [*names, ""]:
            mean = sum(it.seconds.get(name, 0.0) if name else it.waiting for it in group) / len(group)
            if mean > 0:
                steps_told = str(group[0].step) if len(group) == 1 else f"{group[0].step} to {group[-1].step}"
                title = f"step {steps_told}: {name or 'waiting'} {mean:.3g} s"
                style = palette.style(name) if name else "wait"
                height = up(base) - up(base + mean)
                shapes.append(Rect(begin, up(base + mean), max(end - begin - 0.5, 0.5), height, style, title))
                base += mean
    note = f"a column is the mean of {len(groups[0])} steps" if len(groups) < len(steps) else ""
    return Picture(WIDTH, HEIGHT, about, shapes, note)


def share_bar(about: str, parts: Sequence[tuple[str, float, str]]) -> Picture | None:
    """One bar. `parts`: (name, seconds, style)."""
    total = sum(seconds for _, seconds, _ in parts)
    if total <= 0:
        return None
    width, x, shapes = 1160.0, 0.0, list[Shape]()
    for name, seconds, style in parts:
        size = seconds / total * width
        shapes.append(
            Rect(x, 0, max(size - 1, 0.5), 30, style, f"{name}: {seconds:.3g} s, {100 * seconds / total:.1f} %")
        )
        if size > 9.0 * len(name) + 12:
            shapes.append(Text(x + size / 2, 20, name, "inside", "middle"))
        x += size
    return Picture(width, 30, about, shapes)


def _finite(points: Points) -> Points:
    return [(step, value) for step, value in points if math.isfinite(value)]


def _scales(steps: Sequence[float], values: Sequence[float], zero: bool, most: float | None) -> tuple[Scale, Scale]:
    low, high = min(values), max(values)
    if zero:
        low = min(low, 0.0)
    if most is not None:
        high = max(high, most)
    if high == low:
        low, high = low - 0.5 * abs(low), high + 0.5 * abs(high) if high else 1.0
    margin = 0.0 if zero else 0.04 * (high - low)
    across = Scale(min(steps), max(steps), LEFT, WIDTH - RIGHT)
    return across, Scale(low - margin, high + margin, HEIGHT - BOTTOM, TOP)


def _axes(across: Scale, up: Scale, label: str) -> list[Shape]:
    shapes: list[Shape] = []
    for value in ticks(up.low, up.high):
        y = up(value)
        shapes.append(Path(polyline([(LEFT, y), (WIDTH - RIGHT, y)]), "grid"))
        shapes.append(Text(LEFT - 6, y + 4, number(value), "tick", "end"))
    for value in [value for value in ticks(across.low, across.high) if value == int(value)]:
        shapes.append(Text(across(value), HEIGHT - BOTTOM + 16, number(value), "tick", "middle"))
    shapes.append(Text(WIDTH - RIGHT, HEIGHT - 4, label, "tick", "end"))
    return shapes


def _thin(points: Sequence[tuple[float, ...]]) -> Sequence[tuple[float, ...]]:
    """Means of neighbours, where there are too many."""
    if len(points) <= MOST_POINTS:
        return points
    return [
        tuple(sum(column) / len(column) for column in zip(*group, strict=True))
        for group in _groups(points, MOST_POINTS)
    ]


def _groups(items: Sequence[T], most: int) -> list[Sequence[T]]:
    """Neighbours together, so many each that there are at most `most` groups."""
    size = -(-len(items) // most)
    return [items[at : at + size] for at in range(0, len(items), size)]


def column(rows: Sequence[Mapping[str, Any]], name: str) -> Points:
    """(step, figure) of every row that has it."""
    return [(float(row["step"]), float(row[name])) for row in rows if row.get(name) is not None]
