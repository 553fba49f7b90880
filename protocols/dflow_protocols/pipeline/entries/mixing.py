"""Data sets that consist of others: which those are, what they hold out, and the shares by which they are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

PARTS = 1000  # positions of which each data set of a mixture has its share: weights count to a thousandth


def parts_of_block(weights: Sequence[float]) -> list[int]:
    """How many of PARTS positions each weight has: the whole ones, and what is left by largest remainders, the first
    of equal ones first."""
    total = sum(weights)
    shares = [weight / total * PARTS for weight in weights]
    counts = [int(share) for share in shares]
    nearest = sorted(range(len(shares)), key=lambda at: (counts[at] - shares[at], at))
    for at in nearest[: PARTS - sum(counts)]:
        counts[at] += 1
    return counts


def sets_in(data: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The data sets of files or tasks that a data set consists of: itself, or those that it mixes, sorted."""
    mixed = (data.get(name) or {}).get("mix")
    return (name,) if mixed is None else tuple(sorted(mixed))


def held_out_count(data: Mapping[str, Any], name: str) -> int | None:
    """How many questions a data set holds out at most, all that it mixes together; None: it holds nothing out."""
    found = [section["count"] for each in sets_in(data, name) if (section := (data.get(each) or {}).get("held_out"))]
    return sum(found) if found else None
