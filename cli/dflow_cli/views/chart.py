"""A curve in text, for terminals: one character a column, eight heights a line."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

_EIGHTHS = " ▁▂▃▄▅▆▇█"


def chart(values: Sequence[float], width: int, height: int) -> list[str]:
    """`height` lines of `width` characters, top first. The bottom line stands for the least value, a full column for
    the greatest."""
    if not values:
        return [""] * height
    columns = fit(values, width)
    low, high = min(columns), max(columns)
    span = (high - low) or 1.0
    filled = [1 + round((value - low) / span * (8 * height - 1)) for value in columns]
    return [
        "".join(_EIGHTHS[min(max(eighths - 8 * line, 0), 8)] for eighths in filled)
        for line in range(height - 1, -1, -1)
    ]


def fit(values: Sequence[float], width: int) -> list[float]:
    """`width` columns: means over neighbouring values where there are more, else each value in several columns."""
    count = len(values)
    if count <= width:
        return [values[column * count // width] for column in range(width)]
    edges = [column * count // width for column in range(width + 1)]
    return [sum(values[first:end]) / (end - first) for first, end in pairwise(edges)]
