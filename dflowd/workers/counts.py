"""What a call of a function counts beside what it gives, such as what a judge was paid: sums for its task's record.

A function counts for the call that it is in, also from coroutines and threads that it started.
"""

from __future__ import annotations

import math
from contextvars import ContextVar
from typing import Any

from dflow_protocols.metrics import JUDGE

_counts: ContextVar[dict[str, float] | None] = ContextVar("counts", default=None)


def begin() -> dict[str, float]:
    """A call begins in this context: what it counts from here on, by name."""
    counts: dict[str, float] = {}
    _counts.set(counts)
    return counts


def count(name: str, amount: float = 1.0) -> None:
    """Add to the call's sums; outside of a call it counts nothing. `name`: of JUDGE."""
    counts = _counts.get()
    if counts is not None:
        counts[name] = counts.get(name, 0.0) + amount


def counts_of(said: Any) -> dict[str, float]:
    """What a worker says that a call counted. Raises ValueError for what nobody counts."""
    if not isinstance(said, dict) or not all(name in JUDGE and _is_amount(value) for name, value in said.items()):
        raise ValueError(f"counted {said!r:.80}")
    return {name: float(value) for name, value in said.items()}


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
