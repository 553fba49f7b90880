"""The membership list: what is believed of each member, and what a newer claim changes (SWIM section 4.2).

Owns members, suspicions and the queue of updates to piggyback. A suspect refutes by a higher number of its own; a death
is overridden only by a later incarnation or refutation. Knows nothing of probes or of time passing by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf
from operator import attrgetter
from typing import Any, Final, TypeAlias

import msgpack

from ..events import Action, Persist, Report
from ..names import NodeId, content_id
from ..wire.gossip import MemberState, Meta, MetaId, Update
from .broadcast import MAX_RIDERS, Broadcast
from .claim import MAX_COUNT, age, is_sane, is_up
from .sorted_ids import SortedIds
from .suspicion import Suspicion
from .timing import Timing

MAX_MEMBERS: Final = 8_192  # the dead among them; a Sync of all fits into half a frame
UNSTEADY_FOR: Final = 8.0  # suspicion times: who was suspected twice within them comes and goes
DRAINED: Final = "drained"  # of this node: under this key it is kept that it is
MAX_METAS: Final = 256  # asked for or sent in one message, some 80 KB
DIGEST_BYTES: Final = 16  # of the hash that two members compare: nobody gains by books that only look alike
MAX_DEAD: Final = 1_024  # gone members remembered, so that a healed split finds them
_node_of: Final = attrgetter("node")


@dataclass(frozen=True, slots=True)
class Changed:
    """What a member is believed to be has changed: its state, or whether it is drained. `old`: none where it was not
    known.

    `restarted`: its process lives a later life than the one known before, however short it was away: what the old one
    kept in memory is gone. Without it, one that was dead is back with all that it had.
    """

    node: NodeId
    old: MemberState | None
    new: MemberState
    incarnation: int
    restarted: bool


Actions: TypeAlias = list[Action | Changed]


@dataclass(slots=True)
class Member:
    """A node as this one believes it to be. Times are this node's own."""

    claim: Update
    since: float  # when its state last changed
    up_since: float  # when it came to life in this incarnation, as far as noticed here
    meta: Meta | None = None  # until it was pulled, the member cannot be sent to
    heard: float = -1.0  # when it last said anything to this node
    suspected: tuple[float, float] = (-inf, -inf)  # when it became a suspect, the time before the last and the last

    def is_steady(self, now: float, suspicion_s: float) -> bool:
        """Whether it was not suspected twice of late, and denied it: a link that comes and goes is not to wait for."""
        return now >= self.steady_at(suspicion_s)

    def steady_at(self, suspicion_s: float) -> float:
        """From when on that is so, if it is not suspected again."""
        return self.suspected[0] + UNSTEADY_FOR * suspicion_s

    @property
    def state(self) -> MemberState:
        return self.claim.state

    @property
    def incarnation(self) -> int:
        return self.claim.incarnation

    @property
    def is_up(self) -> bool:
        return is_up(self.claim.state)

    def become(self, now: float, claim: Update) -> bool:
        """A newer claim holds. Whether its process lives a later life than the one known before."""
        old, self.claim = self.claim, claim
        restarted = claim.incarnation > old.incarnation
        if restarted:
            self.suspected = (-inf, -inf)
        if restarted or claim.state != old.state:
            self.since = now
            if claim.state == "suspect":
                self.suspected = (self.suspected[1], now)
        if restarted or (is_up(claim.state) and not is_up(old.state)):
            self.up_since = now
        if claim.meta != old.meta:
            self.meta = None
        return restarted

    def declare(self, claim: Update) -> None:
        """What this node says of itself from now on."""
        self.claim = claim

    def learn(self, meta: Meta) -> None:
        """Who it is, as it announced."""
        self.meta = meta

    def note_contact(self, now: float) -> None:
        """It said something to this node."""
        self.heard = now


class Table:
    """The membership list by id, this node among them."""

    def __init__(
        self, me: NodeId, incarnation: int, meta: Meta, timing: Timing, now: float, drained: bool = False
    ) -> None:
        self.me = me
        self.timing = timing
        self.news = Broadcast()
        self.suspicions: dict[NodeId, Suspicion] = {}
        self.members: dict[NodeId, Member] = {}
        mine = Update(me, incarnation, 0, "alive", meta.id, None, drained)
        self.members[me] = Member(mine, now, now, meta, now)
        self.news.put(mine)
        self._outbid_again = now
        self._lacking: dict[NodeId, MetaId] = {}  # members whose meta was announced and is not here
        self._untold: set[NodeId] = (
            set()
        )  # of these: new ones, told of when it is here, since who hears of them asks for it
        self._asked_at: dict[NodeId, float] = {}  # when somebody was asked for it last
        self._alive, self._reachable = SortedIds(), SortedIds()
        self._others: tuple[NodeId, ...] | None = None  # as last asked for; none when it may have changed since
        self._drained: frozenset[NodeId] | None = None  # as last asked for; none when it may have changed since
        self._claims: tuple[Update, ...] | None = None
        self._digest: bytes | None = None
        self.parted: dict[NodeId, tuple[NodeId, ...]] = {}  # living others that say whom they cannot talk to
        self.revision = 0  # how often anything changed that is listed here
        self._list(self.members[me])

    @property
    def mine(self) -> Update:
        return self.members[self.me].claim

    def alive(self) -> tuple[NodeId, ...]:
        """Sorted; this node and suspects included."""
        return self._alive.read()

    @property
    def alive_count(self) -> int:
        return len(self._alive)

    def others(self) -> tuple[NodeId, ...]:
        """The living but this node, sorted."""
        if self._others is None:
            self._others = tuple(node for node in self.alive() if node != self.me)
        return self._others

    def dead(self) -> list[NodeId]:
        """Those that died and can be sent to, sorted."""
        if len(self.members) == len(self._alive):
            return []
        return sorted(n for n, m in self.members.items() if m.claim.state == "dead" and m.meta is not None)

    def reachable(self) -> tuple[NodeId, ...]:
        """Living others that can be sent to, sorted."""
        return self._reachable.read()

    def drained(self) -> frozenset[NodeId]:
        """The living that take no new work; this node may be one."""
        if self._drained is None:
            self._drained = frozenset(node for node in self.alive() if self.members[node].claim.drained)
        return self._drained

    def claims(self) -> tuple[Update, ...]:
        if self._claims is None:
            self._claims = tuple(member.claim for member in self.members.values())
        return self._claims

    def digest(self) -> bytes:
        """The same on all nodes that believe the same of the same members, whoever told them so."""
        if self._digest is None:
            claims = sorted(self.claims(), key=_node_of)
            told = [(c.node, c.incarnation, c.refutation, c.state, c.meta, c.drained, c.apart) for c in claims]
            self._digest = bytes.fromhex(content_id("claims", told))[:DIGEST_BYTES]
        return self._digest

    def unknown(self, claims: Sequence[Update]) -> list[Update]:
        """Those of which exactly the same is not believed already: most of a push-pull is."""
        known = self.members.get
        return [c for c in claims if (m := known(c.node)) is None or (m.claim is not c and m.claim != c)]

    def beyond(self, told: Sequence[Update]) -> tuple[Update, ...]:
        """What is believed, but what was told in the same words."""
        if not told:
            return self.claims()
        theirs = {claim.node: claim for claim in told}
        return tuple(c for c in self.claims() if (t := theirs.get(c.node)) is not c and t != c)

    def lacking(self, *, dead: bool) -> list[NodeId]:
        """Members whose meta is not here yet; the gone only where asked for."""
        return [node for node in self._lacking if dead or self.members[node].is_up]

    def ask_metas(self, now: float, nodes: Iterable[NodeId], pause_s: float) -> tuple[MetaId, ...]:
        """Digests of the metas of these to ask for now, of those that are not here; then not again for `pause_s`."""
        due = [n for n in nodes if n in self._lacking and now >= self._asked_at.get(n, -pause_s) + pause_s]
        self._asked_at.update(dict.fromkeys(due[:MAX_METAS], now))
        return tuple(self._lacking[node] for node in due[:MAX_METAS])

    # Claims ----------------------------------------------------------------------------------------------------------

    def merge(self, now: float, claim: Update, out: Actions, *, synced: bool) -> bool:
        """Take in what somebody claims. Whether it made this node refute that it is suspected or gone.

        `synced`: it comes from a push-pull, so it may be old: a death that is news here is taken as a suspicion only,
        and the member gets its time to refute. Else a split that heals would kill both halves for a moment.
        """
        if not is_sane(claim):
            out.append(_report("bad_claim", claim.node, level="warning", incarnation=claim.incarnation))
        elif claim.node == self.me:
            return self._answer(now, claim, out)
        elif claim.node not in self.members:
            self._admit(now, claim, out)
        else:
            member = self.members[claim.node]
            if synced and claim.state == "dead" and member.is_up:
                claim = replace(claim, state="suspect")
            if age(claim) > age(member.claim):
                self._become(now, member, claim, out)
            elif age(claim) == age(member.claim) and claim.state == "suspect" and claim.by is not None:
                self._confirm(claim.by, claim, out)
        return False

    def suspect(self, now: float, node: NodeId, out: Actions) -> None:
        """This node's own probe of a member failed."""
        member = self.members[node]
        if member.is_up:
            self.merge(now, replace(member.claim, state="suspect", by=self.me), out, synced=False)

    @property
    def next_verdict(self) -> float:
        """When the first suspect counts as dead."""
        return min((each.deadline for each in self.suspicions.values()), default=inf) if self.suspicions else inf

    def expire(self, now: float, out: Actions) -> None:
        """Bury the suspects that did not refute in time."""
        if not self.suspicions:
            return
        for node in [node for node, suspicion in self.suspicions.items() if suspicion.deadline <= now]:
            member = self.members[node]
            self._become(now, member, replace(member.claim, state="dead", by=self.me), out)

    def riders(self, to: NodeId) -> tuple[Update, ...]:
        """News to ride on a message; first of all what is held against the receiver itself, so that it can refute, and
        to one that said nothing yet, and so may not know this node, who speaks."""
        member = self.members.get(to)
        count = len(self._alive)
        if member is None or member.state == "left":
            return self.news.take(count)
        if member.state != "alive":
            return (member.claim, *self.news.take(count, MAX_RIDERS - 1))
        if member.heard < member.up_since:
            return (self.mine, *self.news.take(count, MAX_RIDERS - 1))
        return self.news.take(count)

    def leave(self) -> Update:
        return self._declare(state="left")

    def drain(self, drained: bool, out: Actions) -> Update:
        """This node takes no new work from now on, or takes some again."""
        claim = self._declare(drained=drained)
        self.news.put(claim)
        out.append(_drained(claim))
        return claim

    def part(self, apart: tuple[NodeId, ...]) -> None:
        """This node cannot talk to these members from now on, and to all others."""
        self.news.put(self._declare(apart=apart))

    def _declare(self, **fields: Any) -> Update:
        """Something else of this node holds from now on, over all that was said of it before."""
        member = self.members[self.me]
        member.declare(replace(member.claim, refutation=member.claim.refutation + 1, **fields))
        self._list(member)
        return member.claim

    def _list(self, member: Member) -> None:
        """A member is not what it was: what is listed follows."""
        node, up = member.claim.node, member.is_up
        is_other = up and node != self.me
        self._alive.keep(node, up)
        self._reachable.keep(node, is_other and member.meta is not None)
        self._others = self._drained = self._claims = self._digest = None
        self.revision += 1
        if is_other and member.claim.apart:
            self.parted[node] = member.claim.apart
        else:
            self.parted.pop(node, None)

    def _admit(self, now: float, claim: Update, out: Actions) -> None:
        gone = len(self.members) - len(self._alive)
        if len(self.members) >= MAX_MEMBERS or gone >= MAX_DEAD:
            if not gone:
                out.append(_report("full", claim.node, level="error", members=len(self.members)))
                return
            oldest = min((n for n, m in self.members.items() if not m.is_up), key=lambda n: (self.members[n].since, n))
            del self.members[oldest]
            self._found_meta(oldest)
            self._untold.discard(oldest)
            self.news.drop(oldest)
        member = self.members[claim.node] = Member(claim, now, now)
        self._note_change(now, member, None, False, out)

    def _become(self, now: float, member: Member, claim: Update, out: Actions) -> None:
        """The only place where a member's claim is replaced."""
        old, suspicion_s = member.claim, self.timing.suspicion_s(len(self._alive))
        was_steady = member.is_steady(now, suspicion_s)
        restarted = member.become(now, claim)
        if was_steady and not member.is_steady(now, suspicion_s):
            out.append(_report("unsteady", claim.node, level="warning"))
        self._note_change(now, member, old, restarted, out)

    def _note_change(self, now: float, member: Member, old: Update | None, restarted: bool, out: Actions) -> None:
        claim = member.claim
        self._list(member)
        if member.meta is None and self._lacking.get(claim.node) != claim.meta:
            self._lacking[claim.node] = claim.meta
            self._asked_at.pop(claim.node, None)
        self.suspicions.pop(claim.node, None)
        if claim.state == "suspect":
            count = len(self._alive)
            least_s, most_s = self.timing.suspicion_s(count), self.timing.suspicion_max_s(count)
            self.suspicions[claim.node] = Suspicion(now, claim.by or claim.node, count - 2, least_s, most_s)
        if (old is None or restarted) and claim.state == "alive" and member.meta is None:
            self._untold.add(claim.node)
            self.news.drop(claim.node)
        else:
            self._untold.discard(claim.node)
            self.news.put(claim)
        has_moved = old is None or restarted or claim.state != old.state
        has_drained = claim.drained != (old is not None and old.drained)
        if has_moved:
            out.append(
                _report(_happened(claim, old, restarted), claim.node, incarnation=claim.incarnation, by=claim.by)
            )
        if has_drained:
            out.append(_drained(claim))
        if has_moved or has_drained:
            out.append(Changed(claim.node, old.state if old else None, claim.state, claim.incarnation, restarted))

    def _confirm(self, accuser: NodeId, claim: Update, out: Actions) -> None:
        if self.suspicions[claim.node].confirm(accuser):
            self.news.put(claim)
            out.append(_report("confirmed", claim.node, level="debug", by=accuser))

    def _answer(self, now: float, claim: Update, out: Actions) -> bool:
        """A claim about this node itself: refute that it is suspected or gone, outbid a life that it does not remember.
        Whether it was refuted."""
        me = self.members[self.me]
        mine = me.claim
        if age(claim) <= age(mine) or mine.state == "left":
            return False
        refutes = claim.incarnation == mine.incarnation and claim.state != "alive"
        if refutes:
            me.declare(replace(mine, refutation=max(claim.refutation, mine.refutation) + 1))
            out.append(_report("refuting", self.me, level="warning", state=claim.state, by=claim.by))
        elif now >= self._outbid_again and claim.incarnation + 1 < MAX_COUNT:
            # Somebody knows a life of this node that its own disk forgot, or a second process has its key.
            self._outbid_again = now + self.timing.suspicion_s(len(self._alive))
            me.declare(replace(mine, incarnation=claim.incarnation + 1, refutation=0))
            out.append(_report("outbid", self.me, level="error", incarnation=me.claim.incarnation))
            out.append(Persist("incarnation", msgpack.packb(me.claim.incarnation)))
        self._list(me)
        self.news.put(me.claim)
        return refutes

    def outbid_at_once(self, now: float, claims: Sequence[Update], out: Actions) -> int:
        """Another process with this node's key has proved itself, and yields: what it claimed no longer holds. How
        many of its claims had to be refuted."""
        self._outbid_again = now
        return sum(self._answer(now, claim, out) for claim in claims if is_sane(claim))

    # Metas -----------------------------------------------------------------------------------------------------------

    def learn(self, meta: Meta, node: NodeId, out: Actions) -> bool:
        """Take a member's meta if it is the one that was announced. Whether the member can be sent to from now on, once
        it was dialled."""
        member = self.members.get(node)
        if member is None or member.meta is not None or meta.id != member.claim.meta:
            return False
        if len(meta.public_key) != 32 or meta.node != node:
            out.append(_report("bad_meta", node, level="warning"))
            return False
        member.learn(meta)
        self._found_meta(node)
        self._reachable.keep(node, member.is_up and node != self.me)  # all else that is listed follows from claims
        self.revision += 1
        if node in self._untold:
            self._untold.discard(node)
            self.news.put(member.claim, is_join=True)
        return True

    def tell_only_mine(self) -> None:
        """What was heard of others is news to nobody."""
        self._untold.clear()
        self.news.keep_only(self.me)

    def _found_meta(self, node: NodeId) -> None:
        """It is here, or not wanted any more."""
        self._lacking.pop(node, None)
        self._asked_at.pop(node, None)

    def check(self) -> None:
        suspects = {node for node, member in self.members.items() if member.state == "suspect"}
        assert suspects == self.suspicions.keys(), "each suspect has a deadline, and nobody else"
        assert self.mine.state in ("alive", "left"), "a node never believes itself gone"
        assert len(self.members) <= MAX_MEMBERS
        lacking = {node: member.claim.meta for node, member in self.members.items() if member.meta is None}
        assert lacking == self._lacking, "who cannot be sent to is known as such"
        assert self._untold | self._asked_at.keys() <= lacking.keys()
        up = sorted(node for node, member in self.members.items() if member.is_up)
        assert list(self.alive()) == up, "the living are listed as such"
        assert self.others() == tuple(node for node in up if node != self.me)
        assert self.reachable() == tuple(node for node in up if node not in lacking and node != self.me)
        assert self.claims() == tuple(member.claim for member in self.members.values())


def _happened(claim: Update, old: Update | None, restarted: bool) -> str:
    if claim.state == "alive":
        if old is None:
            return "joined"
        if restarted:
            return "restarted"
        return "refuted" if old.state == "suspect" else "returned"
    return {"suspect": "suspected", "dead": "died", "left": "left"}[claim.state]


def _drained(claim: Update) -> Report:
    return _report("drained", claim.node) if claim.drained else _report("undrained", claim.node)


def _report(happened: str, node: NodeId, *, level: str = "info", **fields: Any) -> Report:
    told = {"node": node, **fields}
    if None in fields.values():
        told = {key: value for key, value in told.items() if value is not None}
    return Report(f"membership.{happened}", told, level)
