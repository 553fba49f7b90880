"""Reachability: which members this node can talk to itself, and through whom it reaches the others.

A member whose announced address is wrong, or closed by a firewall, can join by dialling the others, but cannot be
dialled. And a network need not be transitive: a firewall between two hosts, a broken route or a dead cable between two
switches parts two members that both live, as others prove. Who gets no word of a member, or cannot dial it, tells all
so in its own claim, and frames for it go through members that reach it. One that no way leads to is given no work.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ..events import Dial, Report, Rng
from ..names import NodeId
from ..rendezvous import ranked
from ..wire.gossip import MAX_APART
from .table import Actions, Changed, Member, Table

COMPLAINT_S: Final = 150.0  # a complaint stands for so long; it is made again every two minutes while it is true
MAX_COMPLAINTS: Final = 64
APART_AFTER: Final = 2  # pings in a row that others say were heard of by nobody but them, with no word in between
MAX_HOPS: Final = 8  # members that pass a frame on; a longer way is none
APART_REPORT_S: Final = 60.0  # for which two members cannot talk before a person hears of it


@dataclass(frozen=True, slots=True)
class Complaint:
    """A member cannot dial this node at `address`."""

    address: str
    until: float


@dataclass(frozen=True, slots=True)
class Failure:
    """A lane to a member that had been silent, too, did not get through."""

    address: str
    at: float


class Reach:
    """What lanes found out, by member. All of it is soft: what is true is found out again."""

    def __init__(self) -> None:
        self.unreached: dict[NodeId, dict[str, str]] = {}  # lane -> the address that did not answer
        self.complaints: dict[tuple[NodeId, str], Complaint] = {}  # by who complains, and lane
        self._unproved: dict[tuple[NodeId, str], Failure] = {}  # by member and lane: perhaps it is merely away

    def fail(self, node: NodeId, lane: str, address: str) -> bool:
        """A lane did not get through to a member that lives, or is held dead. Whether that is news."""
        lanes = self.unreached.setdefault(node, {})
        is_news = lanes.get(lane) != address
        lanes[lane] = address
        return is_news

    def succeed(self, node: NodeId, lane: str) -> bool:
        """A lane got through. Whether the member had been out of reach, and is no more."""
        self._unproved.pop((node, lane), None)
        lanes = self.unreached.get(node)
        if lanes is None or lanes.pop(lane, None) is None:
            return False
        if not lanes:
            del self.unreached[node]
        return not lanes

    def forget(self, node: NodeId) -> None:
        """It has left, or lives a new life at an address of its own."""
        self.bury(node)
        self.unreached.pop(node, None)

    def bury(self, node: NodeId) -> None:
        """It is held dead. If it comes back in the same life it is where it was: what lanes did not get through to
        stays, as the next try may be minutes away, and so does what its next word would have proved."""
        for (member, lane), failure in self._unproved.items():
            if member == node:
                self.fail(node, lane, failure.address)
        for books in (self.complaints, self._unproved):
            for of in [of for of in books if of[0] == node]:
                del books[of]

    def keep_only(self, members: Collection[NodeId]) -> None:
        """The others were forgotten long after they died."""
        for node in [node for node in self.unreached if node not in members]:
            del self.unreached[node]

    @property
    def awaits_word(self) -> bool:
        """Whether any member's next word proves something."""
        return bool(self._unproved)

    def await_word(self, now: float, node: NodeId, lane: str, address: str) -> None:
        """A lane did not get through to a member that said nothing of late: its next word proves that it lives."""
        self._unproved[node, lane] = Failure(address, now)

    def take_proved(
        self, now: float, members: Mapping[NodeId, Member], patience_s: float
    ) -> list[tuple[NodeId, str, str]]:
        """Member, lane and address of failures after which that member spoke. Those after which it said nothing for
        `patience_s` are forgotten, unless it may be dead."""
        proved = []
        for (node, lane), failure in [*self._unproved.items()]:
            is_proved = members[node].heard >= failure.at
            if is_proved:
                proved.append((node, lane, failure.address))
            is_away = now - failure.at > patience_s and members[node].state != "suspect"
            if is_proved or is_away:
                del self._unproved[node, lane]
        return proved

    def complain(self, now: float, source: NodeId, lane: str, address: str) -> bool:
        """A member says that it cannot dial this node. Whether that is news."""
        known = self.complaints.get((source, lane))
        if known is None and len(self.complaints) >= MAX_COMPLAINTS:
            return False
        self.complaints[source, lane] = Complaint(address, now + COMPLAINT_S)
        return known is None or known.address != address

    def expire(self, now: float) -> None:
        if not self.complaints:
            return
        for of in [of for of, complaint in self.complaints.items() if complaint.until <= now]:
            del self.complaints[of]


class Links:
    """Of one node, from what its lanes and probes found out and from what others say."""

    def __init__(self, table: Table, reach: Reach) -> None:
        self._table = table
        self._reach = reach
        self._missed: dict[NodeId, int] = {}  # pings in a row that it did not answer though it lives
        self._doubted: set[NodeId] = set()  # its last ping was answered by nobody at all
        self._since: dict[NodeId, float] = {}  # when it was found to be apart
        self._told: set[NodeId] = set()  # of these: people were
        self._routes: dict[NodeId, NodeId] = {}
        self._routed_for: tuple[int, tuple[NodeId, ...]] | None = None  # what the routes were derived from

    @property
    def apart(self) -> tuple[NodeId, ...]:
        """Members that this node cannot talk to itself, sorted. Of the dead those that could not be dialled: when they
        come back nobody is to take this node for the way to them."""
        if not self._missed and not self._reach.unreached:
            return ()  # nearly always: this is asked for at every event
        silent = {node for node, count in self._missed.items() if count >= APART_AFTER}
        return tuple(sorted(silent | self._reach.unreached.keys()))

    @property
    def routes(self) -> Mapping[NodeId, NodeId]:
        """Living members without a link to this node, by their or by its own word, and who a frame for each goes to
        first. Those that no way leads to are not among them. The same object until it changes."""
        table = self._table
        if not (self._missed or self._reach.unreached or table.parted or self._routes):
            return self._routes  # nearly always: this is asked for several times at every event
        mine = self.apart
        if not mine and not table.parted and not self._routes:
            return self._routes
        basis = (table.revision, mine)
        if basis != self._routed_for:
            self._routed_for = basis
            is_parted = mine or any(table.me in apart for apart in table.parted.values())
            found = find_routes(table.me, {**table.parted, table.me: mine}, table.reachable()) if is_parted else {}
            if found != self._routes:
                self._routes = found
        return self._routes

    def near(self) -> tuple[NodeId, ...]:
        """Members that can be sent to without a relay; all that can be sent to, if there is none."""
        reachable = self._table.reachable()
        far = {*self.apart, *self.routes}
        return tuple(node for node in reachable if node not in far) or reachable if far else reachable

    def relays(self, target: NodeId, most: int, rng: Rng, asker: NodeId | None = None) -> tuple[NodeId, ...]:
        """So many members that may probe another one in this node's place, or the `asker`'s, sorted: rather those that
        reach it, and else any, which may know of a way."""
        near = [node for node in self.near() if node not in (target, asker)]
        beyond = self._table.members[target].claim.apart
        able = [n for n in near if n not in beyond and target not in self._table.members[n].claim.apart]
        chosen = rng.sample(able, min(most, len(able)))
        rest = [node for node in near if node not in chosen]
        return tuple(sorted([*chosen, *rng.sample(rest, min(most - len(chosen), len(rest)))]))

    def note_contact(self, node: NodeId) -> None:
        """It said something to this node, and no other member passed it on."""
        if self._missed or self._doubted:
            self._missed.pop(node, None)
            self._doubted.discard(node)

    def miss(self, node: NodeId) -> bool:
        """It lives, as its answer by another way proves, and did not answer directly. Whether it is apart by that."""
        self._missed[node] = self._missed.get(node, 0) + 1
        return self._missed[node] >= APART_AFTER

    def doubt(self, node: NodeId) -> None:
        """Nobody had an answer of it."""
        self._doubted.add(node)

    def note(self, change: Changed, out: Actions) -> None:
        """A member is believed to be something else. One that is back and could not be dialled before is tried anew:
        perhaps it can be now."""
        node, members = change.node, self._table.members
        self._reach.keep_only(members)
        if change.restarted or change.new == "left":
            self._reach.forget(node)
        elif change.new == "dead":
            self._reach.bury(node)
        if change.restarted or change.new in ("dead", "left"):
            self._missed.pop(node, None)
            self._doubted.discard(node)
        elif change.old == "suspect" and change.new == "alive":
            self._refuted(node)
        elif change.old == "dead" and node in self._reach.unreached:  # alive, or a suspect already
            meta = members[node].meta
            if meta is not None:  # else it is dialled when that is learnt
                out.append(Dial(node, meta.public_key, meta.control, meta.bulk))

    def _refuted(self, node: NodeId) -> None:
        """It denied that it is dead. That reached this node, and no answer did."""
        if node in self._doubted:
            self._doubted.discard(node)
            self._missed[node] = APART_AFTER

    def tick(self, now: float, out: Actions) -> None:
        """Tell members whom this node cannot talk to, if that is news, and people, if it lasts."""
        apart = self.apart
        members = self._table.members
        up = {node for node in apart if node in members and members[node].is_up}
        told = tuple(sorted([*sorted(up), *(node for node in apart if node not in up)][:MAX_APART]))
        if told != self._table.mine.apart:
            self._table.part(told)
        if not apart and not self._since and not self._told:
            return
        self._since = {node: self._since.get(node, now) for node in apart if node in up}
        for node in sorted(self._told.difference(apart)):
            out.append(Report("membership.together", {"node": node}))
        self._told.intersection_update(apart)
        for node, since in self._since.items():
            if node not in self._told and now - since >= APART_REPORT_S:
                self._told.add(node)
                fields = {"node": node, "relay": self.routes.get(node, ""), "seconds": round(now - since)}
                out.append(Report("membership.apart", fields, "warning"))

    def check(self) -> None:
        """Assert what must hold after every event."""
        assert self._missed.keys() | self._doubted <= self._table.members.keys()


def find_routes(
    me: NodeId, apart: Mapping[NodeId, Collection[NodeId]], nodes: Sequence[NodeId]
) -> dict[NodeId, NodeId]:
    """The next hop to each of `nodes` that has no link to `me`, on a shortest way. `apart`: whom each says that it
    cannot talk to; one of the two is enough. Of several next hops each target has its own, so that none bears all."""

    def linked(one: NodeId, other: NodeId) -> bool:
        return other not in apart.get(one, ()) and one not in apart.get(other, ())

    hops = {node: node for node in nodes if linked(me, node)}
    left = [node for node in nodes if node not in hops]
    found: dict[NodeId, NodeId] = {}
    edge = tuple(hops)
    for _ in range(MAX_HOPS):
        if not left or not edge:
            break
        reached = {}
        for target in left:
            before = next((node for node in ranked(f"{me}/{target}", edge) if linked(node, target)), None)
            if before is not None:
                reached[target] = hops[before]
        hops |= reached
        found |= reached
        left = [node for node in left if node not in reached]
        edge = tuple(reached)
    return found
