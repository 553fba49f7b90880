"""Versions: headers, hold claims, fork choice, commit. Owns which weights there are and who says to hold them.

A head is a claim: it counts while its holder lives. Commit is evidence, not a fact: two living holders at this node.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, field

from ..names import NodeId, ShardId, VersionId
from ..wire.heartbeat import Heartbeat
from ..wire.steps import Head, Header
from .lineage import Lineage, LostBranch


def preference(head: Head) -> tuple[int, int, str]:
    """Fork choice: most samples trained on, then most steps, then the smaller id. The least key wins."""
    return (-head.samples, -head.step, head.version)


@dataclass(frozen=True, slots=True)
class SetAside:
    """A head whose copy stalled, or that was belied: what these nodes claim of it counts for nothing until then."""

    until: float
    claimants: frozenset[NodeId]


@dataclass
class Versions:
    """What one node knows of a run's versions."""

    me: NodeId
    headers: dict[VersionId, Header] = field(default_factory=dict)
    held: dict[VersionId, Header] = field(default_factory=dict)  # whole, in this node's store; oldest first
    claims: dict[NodeId, Head | None] = field(default_factory=dict)  # others': their newest versions
    pins: dict[NodeId, Head] = field(default_factory=dict)  # others': the version that one copies or goes on from
    set_aside: dict[Head, SetAside] = field(default_factory=dict)
    before: dict[VersionId, tuple[Head, ...]] = field(default_factory=dict)  # what led to headers that others told of
    everywhere: dict[NodeId, int] = field(default_factory=dict)  # by who says so, this node too: see Heartbeat
    entered: dict[NodeId, int] = field(default_factory=dict)  # the same
    lineage: Lineage = field(init=False)
    claimants: dict[Head, set[NodeId]] = field(default_factory=dict, repr=False)  # the same as `claims`, by version
    _heads: dict[NodeId, Head] | None = field(default=None, repr=False, compare=False)  # until `claims` change

    def __post_init__(self) -> None:
        self.lineage = Lineage(self.me)

    @property
    def own(self) -> Header | None:
        """The newest version that this node holds whole."""
        return next(reversed(self.held.values()), None)

    def learn(self, header: Header, before: tuple[Head, ...] = ()) -> None:
        self.headers.setdefault(header.id, header)
        if before:
            self.before[header.id] = before

    def hold(self, header: Header, living: Collection[NodeId] = ()) -> LostBranch | None:
        """Hold `header`'s version as the newest. Gives what was given up if it is not of the own chain."""
        self.learn(header)
        own, lost = self.own, None
        if own is None or header.parent != own.id:
            self.entered[self.me] = header.step
        if own is None or header.parent == own.id:
            self.lineage.extend(header.head, self.heads)
        else:
            lost = self.lineage.switch(header.head, self.before.get(header.id, ()), self.heads, living)
        self.held.pop(header.id, None)
        self.held[header.id] = header
        return lost

    def observe(self, source: NodeId, heartbeat: Heartbeat) -> bool:
        """Take a sender's claims. True if its own changed."""
        is_news = source not in self.claims or self.claims[source] != heartbeat.own
        self._claim(source, heartbeat.own)
        if heartbeat.own is not None:
            self.lineage.see(source, heartbeat.own)
        is_news |= self.everywhere.get(source, 0) != heartbeat.everywhere
        self.everywhere[source], self.entered[source] = heartbeat.everywhere, heartbeat.entered
        return is_news | self._learn_pin(source, heartbeat.pinned)

    def _learn_pin(self, source: NodeId, pinned: Head | None) -> bool:
        """Whether it is another one than before."""
        before = self.pins.pop(source, None)
        if pinned is not None:
            self.pins[source] = pinned
        return before != pinned

    def behind(self, head: Head) -> frozenset[NodeId]:
        """Others that say to copy a version, or to go on from one, and hold this one not yet."""
        return frozenset(node for node in self.pins if self.claims.get(node) != head)

    def found_everywhere(self, step: int) -> bool:
        """This node knows of all on duty that they hold the version after so many steps. True if that is news."""
        is_news = self.everywhere.get(self.me) != step
        self.everywhere[self.me] = step
        return is_news

    @property
    def heads(self) -> Mapping[NodeId, Head]:
        """What others claim to hold, by node in order of id; who claims nothing is not in it."""
        if self._heads is None:
            self._heads = {node: head for node, head in sorted(self.claims.items()) if head is not None}
        return self._heads

    def learn_head(self, holder: NodeId | None, head: Head | None, living: Collection[NodeId]) -> bool:
        """Second-hand news of a living holder: counts only where nothing is known of it at first hand, not even that
        it holds nothing; else two nodes would remind each other for ever of what a third one lost. False of a holder
        that is not known to live."""
        if holder is None or head is None or holder == self.me or holder in self.claims:
            return True
        if holder in living:
            self._claim(holder, head)
        return holder in living

    def _claim(self, node: NodeId, head: Head | None) -> None:
        """This is what a node claims to hold now."""
        if node in self.claims and self.claims[node] == head:
            return
        self._unclaim(node)
        self.claims[node] = head
        if head is not None:
            self.claimants.setdefault(head, set()).add(node)

    def _unclaim(self, node: NodeId) -> None:
        self._heads = None
        head = self.claims.pop(node, None)
        if head is not None:
            self.claimants[head].discard(node)
            if not self.claimants[head]:
                del self.claimants[head]

    def forget(self, node: NodeId) -> None:
        self._unclaim(node)
        self.pins.pop(node, None)
        self.everywhere.pop(node, None)
        self.entered.pop(node, None)
        self.lineage.forget(node)

    def holders(self, version: VersionId, living: Collection[NodeId]) -> tuple[NodeId, ...]:
        """Living others that claim the version, or the next one, if they made that from it: they keep the parent a
        while."""
        return tuple(
            node
            for node, head in self.heads.items()
            if node in living
            and (head.version == version or (self.is_parent(version, head.version) and self._made(node, head)))
        )

    def _made(self, node: NodeId, head: Head) -> bool:
        """Whether a node made its newest version itself, as far as it said how it came there."""
        return self.entered.get(node, 0) < head.step

    def is_parent(self, version: VersionId, child: VersionId) -> bool:
        header = self.headers.get(child)
        return header is not None and header.parent == version

    @property
    def newest_step(self) -> int:
        """Of all versions that others claim; 0 if they claim none."""
        return max((head.step for head in self.claimants), default=0)

    def claimed(self, now: float, living: Set[NodeId]) -> list[Head]:
        """The heads that living nodes claim and that are not set aside, each once; this node's own is the last."""
        found = [
            head
            for head, nodes in self.claimants.items()
            if not nodes.isdisjoint(living) and self._counts(now, head, living)
        ]
        return found if self.own is None else [*found, self.own.head]

    def _counts(self, now: float, head: Head, living: Set[NodeId]) -> bool:
        """Whether it is set aside no more, or a living node claims it that did not when it was tried."""
        aside = self.set_aside.get(head)
        return aside is None or aside.until <= now or not (self.claimants[head] & living) <= aside.claimants

    def best(self, now: float, living: Set[NodeId]) -> tuple[Head, NodeId] | None:
        """The one of them that fork choice prefers, and who claims it: rather another one than this node."""
        head = min(self.claimed(now, living), key=preference, default=None)
        if head is None:
            return None
        return head, min(self.claimants.get(head, set()) & living, default=self.me)

    def who_claims(self, head: Head) -> frozenset[NodeId]:
        """Others that claim just this."""
        return frozenset(self.claimants.get(head, ()))

    def who_got_to(self, header: Header) -> set[NodeId]:
        """Others that claim the version or one that descends from it, as far as its chain is known here."""
        found = [nodes for head, nodes in self.claimants.items() if self.descends(head.version, header)]
        return set().union(*found)

    def descends(self, version: VersionId, ancestor: Header) -> bool | None:
        """Whether a version's chain leads to `ancestor`, as headers say or who told of one; None where neither does."""
        at: VersionId | None = version
        below: int | None = None
        while at is not None:
            if at == ancestor.id or ancestor.head in self.before.get(at, ()):
                return True
            header = self.headers.get(at)
            if header is None:
                return None
            if header.step <= ancestor.step or (below is not None and header.step >= below):
                return False  # a chain that does not go down is a member's invention
            below = header.step
            at = header.parent
        return False

    def led_to(self, header: Header) -> tuple[Head, ...]:
        """The versions before it on its chain, newest first, as far as they are known here by name."""
        return self.before.get(header.id, ()) or self.lineage.before(header.head)

    def ancestor(self, header: Header, step: int) -> Header | None:
        """The version of a header's chain after so many steps; None where its own header is not known here."""
        at = header
        while at.step > step:
            parent = self.headers.get(at.parent) if at.parent is not None else None
            if parent is None:
                known = next((head for head in self.led_to(at) if head.step == step), None)
                return self.headers.get(known.version) if known is not None else None
            if parent.step >= at.step:  # a member's invention
                return None
            at = parent
        return at if at.step == step else None

    def passers(self, header: Header, living: Collection[NodeId]) -> tuple[NodeId, ...]:
        """Living others that had this version when they made what they have now, as far as they said how they came
        there."""
        return tuple(
            node
            for node, head in self.heads.items()
            if node in living
            and self.entered.get(node, 0) <= header.step
            and self.descends(head.version, header) is True
        )

    def is_committed(self, header: Header, trainers: Collection[NodeId], living: Collection[NodeId]) -> bool:
        """Whether enough living nodes claim the version or a descendant: two, or all the trainers there are."""
        claimed = len(self.who_got_to(header).intersection(living))
        if self.own is not None and self.descends(self.own.id, header):
            claimed += 1
        return claimed >= min(2, sum(1 for node in trainers if node in living))

    def keep_only(self, versions: Collection[VersionId]) -> None:
        """Of what is held, all but these versions is given up."""
        self.held = {version: header for version, header in self.held.items() if version in versions}

    def drop_with(self, shard: ShardId) -> None:
        """Give up all versions whose state has this shard."""
        self.keep_only([h.id for h in self.held.values() if all(ref.id != shard for _, ref in h.state)])

    def inherit(self, failed: Versions) -> None:
        """Go on from what an attempt that failed still holds."""
        self.lineage = failed.lineage
        for header in failed.held.values():
            self.hold(header)

    def set_aside_until(self, head: Head, until: float, claimants: frozenset[NodeId]) -> None:
        """What these nodes, and whom it was set aside for before, claim of this head counts for nothing meanwhile."""
        before = self.set_aside.get(head)
        self.set_aside[head] = SetAside(until, claimants if before is None else claimants | before.claimants)

    def forget_set_aside(self) -> None:
        """Of heads that nobody claims any more."""
        self.set_aside = {head: aside for head, aside in self.set_aside.items() if head in self.claimants}

    def prune(self, before_step: int, needed: Collection[VersionId]) -> None:
        """Drop headers of versions before a step, as their chain is settled for this node; but not those `needed`."""
        kept = {*self.held, *needed}
        for version in [v for v, header in self.headers.items() if header.step < before_step and v not in kept]:
            del self.headers[version]
        self.before = {version: before for version, before in self.before.items() if version in self.headers}
