"""Coming back after a long sleep: hear from one member what happened before acting on what was true then.

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
        """known: members to ask, in this order. patience_s: how long to wait after the last of them was asked."""
        self.due = now
        self._left = list(known)
        self._count = FIRST_ASKED
        self._interval_s, self._patience_s = interval_s, patience_s
        self.is_over = not self._left

    def take_due(self, now: float) -> list[NodeId]:
        """Whom to ask now. Over, once all were asked and the patience has passed."""
        if now < self.due or self.is_over:
            return []
        if not self._left:
            self.is_over = True
            return []
        asked, self._left = self._left[: self._count], self._left[self._count :]
        self._count *= 2
        self.due = now + (self._interval_s if self._left else self._patience_s)
        return asked
