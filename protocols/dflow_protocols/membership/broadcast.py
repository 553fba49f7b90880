"""Infection-style dissemination: updates are piggybacked on other messages, a bounded number of times (SWIM 4.1)."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from typing import Final, NamedTuple

from ..names import NodeId
from ..wire.gossip import Update
from .claim import is_up

RETRANSMIT_FACTOR: Final = 4  # as in memberlist; with 3, one in some hundred refutations missed a member
MAX_RIDERS: Final = 12  # claims a message, about 2.5 KB: two Ethernet frames
MAX_JOINS: Final = 2 * MAX_RIDERS  # joins to be told; of a wave of them push-pulls bring more, and each of them once


def retransmit_limit(members: int) -> int:
    """How often a claim is told by one node before it counts as known: 4 * ceil(log10(members + 1))."""
    return RETRANSMIT_FACTOR * math.ceil(math.log10(members + 1))


class _News(NamedTuple):
    """Compares as its urgency does, which is never that of another."""

    is_of_living: bool
    transmits: int
    age: int  # the newer, the less
    claim: Update


class Broadcast:
    """Updates to piggyback, at most one a member. Deaths go first, then what was told least, then the newest."""

    def __init__(self) -> None:
        self._news: dict[NodeId, _News] = {}
        self._queue: list[_News] = []  # sorted
        self._joins: dict[NodeId, None] = {}  # members that are new, the one that came last at the end
        self._age = 0

    def __len__(self) -> int:
        return len(self._news)

    def put(self, claim: Update, *, is_join: bool = False) -> None:
        """Tell this from now on, in place of what was told of that member. Of joins only the latest are told: all
        other news waits for nobody, and a member that was not told of compares its books sooner or later."""
        self.drop(claim.node)
        self._age -= 1
        self._keep(_News(is_up(claim.state), 0, self._age, claim))
        if is_join:
            self._joins[claim.node] = None
            if len(self._joins) > MAX_JOINS:
                self.drop(next(iter(self._joins)))

    def drop(self, node: NodeId) -> None:
        news = self._news.pop(node, None)
        if news is not None:
            del self._queue[bisect_left(self._queue, news)]
            self._joins.pop(node, None)

    def keep_only(self, node: NodeId) -> None:
        """What was to be told of others is told no more."""
        for other in [other for other in self._news if other != node]:
            self.drop(other)

    def clear(self) -> None:
        self._news.clear()
        self._queue.clear()
        self._joins.clear()

    def take(self, members: int, count: int = MAX_RIDERS) -> tuple[Update, ...]:
        """The most urgent claims, each counted as told once; gone after their last time."""
        if not self._queue:
            return ()
        limit = retransmit_limit(members)
        taken = self._queue[:count]
        del self._queue[:count]
        for news in taken:
            if news.transmits + 1 < limit:
                self._keep(_News(news.is_of_living, news.transmits + 1, news.age, news.claim))
            else:
                del self._news[news.claim.node]
                self._joins.pop(news.claim.node, None)
        return tuple(news.claim for news in taken)

    def _keep(self, news: _News) -> None:
        self._news[news.claim.node] = news
        insort(self._queue, news)
