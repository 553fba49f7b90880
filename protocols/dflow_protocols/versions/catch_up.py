"""Catching up by state transfer: from which version this node works, and when it copies one instead of making it.

A head is followed while it flows: who hears of a better one that it cannot reach by its own next update stops
extending its own only while the copy advances; a copy that stalls is set aside, and tried again with back-off.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from ..events import Action, Send
from ..names import NodeId
from ..shards.holdings import Holdings
from ..wire.steps import Head, Header, HeaderGet
from ..work import Product
from .lineage import LostBranch
from .versions import Versions, preference

SET_ASIDE_FOR = 2.0  # suspicion times; doubled by each stall of the same head, up to MAX_DOUBLINGS
MAX_DOUBLINGS = 5
FOLLOWED_STEPS = 8  # behind the best head from which one goes on to it; what it takes is kept for no longer


@dataclass
class Asked:
    """The header of the best head, asked for since `since`, `times` times."""

    head: Head
    since: float
    last: float
    claimants: frozenset[NodeId]  # when it was asked for first
    times: int = 1


@dataclass
class CatchUp:
    """Which head is being copied, if any."""

    versions: Versions
    holdings: Holdings
    target: Header | None = None
    since: float = 0.0
    claimants: frozenset[NodeId] = frozenset()  # of the target, when its copy began
    behind_since: float | None = None  # since when a better head is known that the own next update should reach
    stalls: dict[Head, int] = field(default_factory=dict)
    asked: Asked | None = None
    is_following: bool = False  # the own version is more than one behind the best, and is the one that this came from

    @property
    def pinned(self) -> Head | None:
        """The version that this node copies or goes on from, so that others keep what it takes to reach them."""
        if self.target is not None:
            return self.target.head
        return self.versions.own.head if self.versions.own is not None and self.is_following else None

    def restart_patience(self) -> None:
        """The own head changed: how long a better one has been known is counted anew."""
        self.behind_since = None

    def stop(self) -> None:
        """Nothing is copied any more."""
        self.target = None

    def forget_stalls(self) -> None:
        """Of heads that nobody claims any more."""
        claimed = set(self.versions.heads.values())
        self.stalls = {head: count for head, count in self.stalls.items() if head in claimed}

    def reconcile(
        self,
        now: float,
        living: Collection[NodeId],
        suspicion_s: float,
        busy: bool,
        out: list[Action],
        is_left: bool = False,
    ) -> LostBranch | None:
        """Choose what to copy. `busy`: the own update is running or just moved on, so being behind is no reason yet.
        `is_left`: the own next version is others' to make, so that it is copied as soon as somebody has it. Gives what
        was given up, once a copy of another chain's head is whole."""
        alive = frozenset(living)
        if self.target is not None:
            self._keep_or_give_up(now, alive, suspicion_s)
        if self.target is None:
            self._choose(now, alive, suspicion_s, busy, out, is_left)
        return self._fetch(now, alive, out) if self.target is not None else None

    def _keep_or_give_up(self, now: float, living: frozenset[NodeId], suspicion_s: float) -> None:
        target = self.target
        assert target is not None
        own = self.versions.own
        if own is not None and preference(own.head) <= preference(target.head):
            self.target = None  # the own head overtook it
            return
        if self._is_abandoned(now, target, living):
            self.target = None
            return
        if now - max(self.since, self.holdings.state_at) <= suspicion_s:
            return
        self._set_aside(now, target.head, suspicion_s, self.claimants)
        self.target = None

    def _is_abandoned(self, now: float, target: Header, living: frozenset[NodeId]) -> bool:
        """Whether nobody can give it, and who had it went over to a better one. Who is further on the same chain keeps
        what others pin, and may give it yet."""
        if self.versions.holders(target.id, living) or any(self.holdings.is_coming(ref) for _, ref in target.state):
            return False
        found = self.versions.best(now, living)
        return found is not None and found[0] != target.head and found[0].step <= target.step

    def _set_aside(self, now: float, head: Head, suspicion_s: float, claimants: frozenset[NodeId]) -> None:
        """Not the version, only what these claim of it: who says so later has it of somebody, and may give it."""
        stalls = self.stalls.get(head, 0)
        self.stalls[head] = stalls + 1
        seconds = SET_ASIDE_FOR * suspicion_s * 2 ** min(stalls, MAX_DOUBLINGS)
        self.versions.set_aside_until(head, now + seconds, claimants)

    def _choose(
        self,
        now: float,
        living: frozenset[NodeId],
        suspicion_s: float,
        busy: bool,
        out: list[Action],
        is_left: bool,
    ) -> None:
        found, own = self.versions.best(now, living), self.versions.own
        self.is_following = False
        if found is None or (own is not None and found[0].version == own.id):
            self.behind_since = None
            return
        head, _ = found
        header = self.versions.headers.get(head.version)
        if header is None:
            is_next = own is not None and head.step == own.step + 1
            self.is_following = own is not None and own.step + 1 < head.step <= own.step + FOLLOWED_STEPS
            if not is_next or is_left or not self._knows_parent() or self._is_stuck(now, suspicion_s, busy):
                self._ask(now, head, living, suspicion_s, out)
            return
        self.asked = None
        if header.head != head or (own is not None and preference(own.head) <= preference(header.head)):
            self._set_aside(now, head, suspicion_s, self.versions.who_claims(head))  # it claims more than it has
            return
        may_follow = own is not None and not is_left and self._may_follow(own, head)
        if own is not None and may_follow and not self._is_stuck(now, suspicion_s, busy):
            self.is_following = head.step > own.step + 1
            return
        self.target, self.since, self.behind_since = header, now, None
        self.claimants = self.versions.who_claims(head)

    def _may_follow(self, own: Header, head: Head) -> bool:
        """Whether it comes of the own version, and what it takes to make it is kept by somebody yet: else each step
        would be done once more here, alone, while the others get further away."""
        return head.step <= own.step + FOLLOWED_STEPS and self.versions.descends(head.version, own) is True

    def _knows_parent(self) -> bool:
        """Of the own version; not of one that was just copied. Whether that is committed is then told by the headers of
        what others made of it, and nothing is made of it before."""
        own = self.versions.own
        return own is None or own.parent is None or own.parent in self.versions.headers

    def _is_stuck(self, now: float, suspicion_s: float, busy: bool) -> bool:
        """Whether the own next update did not come about for a suspicion time, though somebody has it."""
        if busy or self.behind_since is None:
            self.behind_since = now
        return now - max(self.behind_since, self.holdings.advanced_at) > suspicion_s

    def _ask(self, now: float, head: Head, living: frozenset[NodeId], suspicion_s: float, out: list[Action]) -> None:
        """Ask one claimant after another for the header; without one a head is set aside like one without chunks."""
        claimants = [node for node, claimed in self.versions.heads.items() if claimed == head and node in living]
        if self.asked is None or self.asked.head != head:
            self.asked = Asked(head, now, now, self.versions.who_claims(head))
        elif now - self.asked.since > 2 * suspicion_s:
            self._set_aside(now, head, suspicion_s, self.asked.claimants)
            self.asked = None
            return
        elif now - self.asked.last < suspicion_s / 4:
            return
        else:
            self.asked.last, self.asked.times = now, self.asked.times + 1
        out.append(Send(claimants[self.asked.times % len(claimants)], HeaderGet(self.holdings.run, head.version)))

    def _fetch(self, now: float, living: frozenset[NodeId], out: list[Action]) -> LostBranch | None:
        assert self.target is not None
        others = self.versions.holders(self.target.id, living)
        here = [
            self.holdings.want(now, ref, living, out, None, others, product=Product.STATE)
            for _, ref in self.target.state
        ]
        if not all(here):
            return None
        self.stalls.pop(self.target.head, None)
        lost = self.versions.hold(self.target, living)
        self.target, self.is_following = None, True  # as far as is known: a pin that is gone for a moment is of no use
        return lost
