"""Counts repeats, so that what a peer or a fault can trigger over and over is one line now and then."""

from __future__ import annotations

from collections.abc import Hashable

REPORT_INTERVAL_S = 10.0  # one line a source and kind; what came between is its count
MAX_SOURCES = 4096  # strangers' addresses are among them, and strangers choose theirs


class Tally:
    """Pure: time is an argument."""

    def __init__(self) -> None:
        self._counts: dict[Hashable, tuple[float, int]] = {}  # kind and source -> (next report at, unreported)

    def add(self, now: float, what: Hashable) -> int:
        """Count one more. Returns how many to report now, 0 for none yet."""
        due, count = self._counts.get(what, (now, 0))
        if now < due:
            self._counts[what] = (due, count + 1)
            return 0
        if what not in self._counts and len(self._counts) >= MAX_SOURCES:
            self._counts.pop(next(iter(self._counts)))
        self._counts[what] = (now + REPORT_INTERVAL_S, 0)
        return count + 1
