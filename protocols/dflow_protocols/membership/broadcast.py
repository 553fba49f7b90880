"""Infection-style dissemination: updates are piggybacked on other messages, a bounded number of times (SWIM 4.1)."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import Final

from ..names import NodeId
from ..wire.gossip import Update
from .claim import is_up

RETRANSMIT_FACTOR: Final = 4  # as in memberlist; with 3, one in some hundred refutations missed a member
MAX_RIDERS: Final = 12  # claims a message, about 2.5 KB: two Ethernet frames


def retransmit_limit(members: int) -> int:
    """How often a claim is told by one node before it counts as known: 4 * ceil(log10(members + 1))."""
    return RETRANSMIT_FACTOR * math.ceil(math.log10(members + 1))


@dataclass(slots=True)
class _News:
    claim: Update
    transmits: int
    order: int

    def transmit(self) -> int:
        """How often it was sent, this time included."""
        self.transmits += 1
        return self.transmits


class Broadcast:
    """Updates to piggyback, at most one a member. Deaths go first, then what was told least, then the newest."""

    def __init__(self) -> None:
        self._news: dict[NodeId, _News] = {}
        self._order = 0

    def __len__(self) -> int:
        return len(self._news)

    def put(self, claim: Update) -> None:
        """Tell this from now on, in place of what was told of that member."""
        self._order += 1
        self._news[claim.node] = _News(claim, 0, self._order)

    def drop(self, node: NodeId) -> None:
        self._news.pop(node, None)

    def clear(self) -> None:
        self._news.clear()

    def take(self, members: int, count: int = MAX_RIDERS) -> tuple[Update, ...]:
        """The most urgent claims, each counted as told once; gone after their last time."""
        limit = retransmit_limit(members)
        taken = heapq.nsmallest(count, self._news.values(), key=_urgency)
        for news in taken:
            if news.transmit() >= limit:
                del self._news[news.claim.node]
        return tuple(news.claim for news in taken)


def _urgency(news: _News) -> tuple[bool, int, int]:
    return is_up(news.claim.state), news.transmits, -news.order
