"""A curve in text, for terminals: one character a column, eight heights a line."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

_EIGHTHS = " ▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """One line of at most `width` characters, from the least value to the greatest."""
    return chart(values, width, 1)[0] if values else ""


def chart(values: Sequence[float], width: int, height: int) -> list[str]:
    """`height` lines, top first. The bottom line stands for the least value, a full column for the greatest."""
    if not values:
        return [""] * height
    columns = squeeze(values, width)
    low, high = min(columns), max(columns)
    span = (high - low) or 1.0
    filled = [1 + round((value - low) / span * (8 * height - 1)) for value in columns]
    return [
        "".join(_EIGHTHS[min(max(eighths - 8 * line, 0), 8)] for eighths in filled)
        for line in range(height - 1, -1, -1)
    ]


def squeeze(values: Sequence[float], width: int) -> list[float]:
    """At most `width` means over neighbouring values."""
    if len(values) <= width:
        return list(values)
    edges = [index * len(values) // width for index in range(width + 1)]
    return [sum(values[first:end]) / (end - first) for first, end in pairwise(edges)]
