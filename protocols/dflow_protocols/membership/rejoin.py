"""Rejoin after a long sleep: push-pull with one member before acting on what was true then.

Others held this node dead and did its work again. So it asks members for all they know, a few at first, then more and
more, and acts again once one has answered; if nobody does, it is alone and goes on. Knows nothing of claims or runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..names import NodeId

FIRST_ASKED: Final = 3  # members asked at once; twice as many each time, so that a thousand are asked in nine rounds


class Rejoin:
    """One return. `due`: when `take_due` has something to say."""

    def __init__(self, now: float, known: Sequence[NodeId], interval_s: float, patience_s: float) -> None:
        """known: members to ask, in this order, again and again, since links do not outlive a long sleep.
        patience_s: how long to go on after the last of them was asked for the first time."""
        self.due = now
        self._known, self._at, self._count = tuple(known), 0, FIRST_ASKED
        self._interval_s, self._patience_s = interval_s, patience_s
        self._over_at = float("inf")
        self.is_over = not known

    def take_due(self, now: float) -> list[NodeId]:
        """Whom to ask now. Over, once all were asked and the patience has passed."""
        if now < self.due or self.is_over:
            return []
        if now >= self._over_at:
            self.is_over = True
            return []
        count = min(self._count, len(self._known))
        asked = [self._known[(self._at + index) % len(self._known)] for index in range(count)]
        self._at += count
        self._count *= 2
        if self._at >= len(self._known):
            self._over_at = min(self._over_at, now + self._patience_s)
        self.due = min(now + self._interval_s, max(now, self._over_at))
        return asked
