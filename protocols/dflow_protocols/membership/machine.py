"""The membership machine: probe, suspect, refute, push-pull, gossip, bootstrap.

SWIM (Das, Gupta, Motivala 2002) with Lifeguard (Dadgar, Phillips, Currey, arXiv 1707.00788). Owns who is believed
alive and where each can be dialled; knows nothing of runs, tasks or sockets.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final, assert_never

from ..events import Dial, Event, Lagged, LaneFailed, LaneOpened, Persist, Received, Report, Rng, Send, Tick
from ..names import NodeId
from ..wire.gossip import (
    Ack,
    Gossip,
    GossipMessage,
    Meta,
    MetaGet,
    MetaPut,
    Nack,
    Ping,
    PingRequest,
    Sync,
    SyncAsk,
    Unreachable,
    Update,
)
from .awareness import Awareness
from .bootstrap import MAX_CACHED, MAX_PAUSES, Bootstrap, Pauses, PeerCache, Seed
from .broadcast import MAX_RIDERS, retransmit_limit
from .claim import age, is_sane
from .duplicate import Duplicate
from .probe import FailureDetector
from .reach import Links, Reach
from .rejoin import Rejoin
from .table import MAX_METAS, Actions, Changed, Member, Table
from .timing import Timing

GOSSIP_FANOUT: Final = 3  # members told at a time, as memberlist does
MAX_TOLD: Final = 64  # members told directly that this node leaves, or is drained; gossip tells the others
ANSWER_PAUSE: Final = 0.5  # gossip intervals between two answers to one member: less than any honest asker's pause
LAG_SHARE: Final = 0.5  # of the probe timeout: a process that runs so late takes live members for silent ones


class Membership:
    """Who is believed alive. `deadline`: when `handle(now, Tick())` is next due. `silenced_by`: the earlier process
    that lives under this node's key, if one has shown itself: this one says nothing more."""

    deadline: float

    def __init__(
        self,
        me: NodeId,
        incarnation: int,
        meta: Meta,
        timing: Timing,
        rng: Rng,
        seeds: Sequence[Seed],
        cached: Sequence[Seed],
        now: float,
        drained: bool = False,
    ) -> None:
        """`incarnation`: higher than in every earlier life of this node. `cached`: what `Persist("peers")` kept.
        `drained`: it takes no work, as it was told in an earlier life."""
        assert meta.node == me, "a node's id is the hash of its key"
        self.timing = timing
        self._rng = rng
        self._table = Table(me, incarnation, meta, timing, now, drained)
        self._awareness = Awareness(timing.awareness_max)
        self.reach = Reach()
        self._links = Links(self._table, self.reach)
        self._detector = FailureDetector(self._table, self._links, self._awareness, timing, rng)
        self._bootstrap = Bootstrap(me, seeds, cached, timing, rng, now)
        self._duplicate = Duplicate(meta)
        self._rejoin: Rejoin | None = None
        self._dialled: set[NodeId] = set()
        self._strangers, self._answered = Pauses(), Pauses()  # who was asked for its books, or told of these
        self._peer_cache = PeerCache()
        self._detector.begin(now + rng.uniform(0.0, timing.probe_interval_s))
        self._sync_due = now + rng.uniform(0.5, 1.0) * timing.sync_interval_s
        self._ask_dead_due = now + timing.ask_dead_s
        self._gossip_due = now
        self.silenced_by: Meta | None = None
        self._left = False
        self._arm()

    # What others ask -------------------------------------------------------------------------------------------------

    @property
    def members(self) -> Mapping[NodeId, Member]:
        """All that were ever heard of, this node included."""
        return self._table.members

    @property
    def revision(self) -> int:
        """How often anything changed of the members, as they are listed."""
        return self._table.revision

    @property
    def incarnation(self) -> int:
        """Of this node; it grows in the middle of a life only if others remember a life that the disk does not."""
        return self._table.mine.incarnation

    def alive(self) -> tuple[NodeId, ...]:
        """Sorted; this node and suspects included, those that cannot be sent to yet, too."""
        return self._table.alive()

    def drained(self) -> frozenset[NodeId]:
        """The living that take no new work; this node may be one."""
        return self._table.drained()

    @property
    def routes(self) -> Mapping[NodeId, NodeId]:
        """Living members that this node cannot talk to, and which member a frame for each goes to first."""
        return self._links.routes

    @property
    def is_rejoining(self) -> bool:
        """This node slept for so long that others hold it dead, and has not heard yet what they did meanwhile."""
        return self._rejoin is not None

    @property
    def is_unhealthy(self) -> bool:
        """This node waits as long as it ever does before it takes silence for death."""
        return self._awareness.score == self.timing.awareness_max - 1

    def suspicion_s(self) -> float:
        """The unit of the step protocol's delays, at the mesh's present size."""
        return self.timing.suspicion_s(self._table.alive_count)

    # Events ----------------------------------------------------------------------------------------------------------

    def handle(self, now: float, event: Event) -> Actions:
        """Takes Received with a message of wire/gossip.py, Tick, Lagged, LaneOpened and LaneFailed."""
        if self._left:
            return []
        out: Actions = []
        match event:
            case Received(source, message) if source == self._table.me:
                self._on_own_key(now, message, out)
            case Received(source, message, relay):
                if relay is None:
                    self._links.note_contact(source)
                self._receive(now, source, message, out, relay is None)
                self._evidence(now, source, None, message, out)
            case Tick():
                self._tick(now, out)
            case Lagged(seconds) if seconds > LAG_SHARE * self.timing.probe_timeout_s:
                self._awareness.note(1)
            case LaneFailed(node, lane, address):
                self._fail_to_reach(now, node, lane, address, out)
            case LaneOpened(node, lane):
                if self.reach.succeed(node, lane):
                    out.append(Report("membership.reached", {"node": node}))
        return self._finish(now, out)

    def slept(self, now: float, seconds: float) -> Actions:
        """This process was asleep, and `now` stood still meanwhile: what it did not hear proves nothing.

        `seconds` is what the clock took for sleep, by which it passed over a first probe timeout: people are told both.
        After a sleep longer than the suspicion time it is dead to the others, and asks its way back.
        """
        if self._left:
            return []
        late_s = seconds + self.timing.probe_timeout_s
        out: Actions = [Report("membership.stalled", {"seconds": round(late_s, 3)}, "warning")]
        self._awareness.note(1)
        is_dead_to_others = seconds > self.suspicion_s()
        self._detector.slept(now, is_dead_to_others)
        if is_dead_to_others:
            for suspicion in self._table.suspicions.values():
                suspicion.restart(now)
            known = self._table.reachable()
            order = self._rng.sample(known, len(known))
            self._rejoin = Rejoin(now, order, self.timing.probe_interval_s, self.suspicion_s())
            self._ask_way_back(now, out)
        return self._finish(now, out)

    def observe(self, now: float, source: NodeId, incarnation: int | None, is_direct: bool = True) -> Actions:
        """A message of another protocol came from `source`, which says that this is its incarnation. `is_direct`: over
        the link to it."""
        if self._left:
            return []
        if is_direct:
            self._links.note_contact(source)
        out: Actions = []
        self._evidence(now, source, incarnation, None, out)
        return self._finish(now, out) if out else out  # nearly always nothing: this runs for every message

    def leave(self, now: float) -> Actions:
        """Say goodbye; from then on this machine is silent."""
        out = self._tell_at_once(self._table.leave())
        self._left = True
        self.deadline = float("inf")
        return out

    def drain(self, now: float, drained: bool) -> Actions:
        """This node takes no new work from now on, or takes some again. Nothing where that is so already."""
        if self._left or drained == self._table.mine.drained:
            return []
        out: Actions = []
        claim = self._table.drain(drained, out)
        return self._finish(now, [*out, *self._tell_at_once(claim)])

    def _tell_at_once(self, claim: Update) -> Actions:
        reachable = self._table.reachable()
        recipients = self._rng.sample(reachable, min(MAX_TOLD, len(reachable)))
        return [Send(node, Gossip((claim,))) for node in recipients]

    def check(self) -> None:
        """Assert what must hold after every event."""
        self._table.check()
        assert self.timing.awareness_max > self._awareness.score >= 0
        self._detector.check()
        self._links.check()
        assert max(len(self._strangers), len(self._answered)) <= MAX_PAUSES
        assert self.reach.unreached.keys() <= self.members.keys()
        assert self._left or self.deadline < float("inf"), "a member that lives always has something due"

    # Messages --------------------------------------------------------------------------------------------------------

    def _receive(
        self, now: float, source: NodeId, message: GossipMessage, out: Actions, is_direct: bool = True
    ) -> None:
        refuted = 0
        match message:
            case Ping(sequence, updates):
                refuted = self._merge(now, source, updates, out)
                out.append(Send(source, Ack(sequence, self._table.riders(source)), is_direct))  # the way it came
            case PingRequest(_, _, _, updates):
                refuted = self._merge(now, source, updates, out)
                self._detector.relay(now, source, message, out)
            case Ack(sequence, updates):
                refuted = self._merge(now, source, updates, out)
                self._detector.answered(source, sequence, out, is_direct)
            case Nack(sequence):
                self._detector.nacked(source, sequence)
            case Gossip(updates):
                refuted = self._merge(now, source, updates, out)
            case Sync():
                refuted = self._synchronise(now, source, message, out)
            case SyncAsk(digest):
                if digest != self._table.digest() and self._may_answer(now, source):
                    out.append(Send(source, self._sync(wants_answer=True)))
            case MetaGet(metas):
                wanted = frozenset(metas)
                known = (member.meta for member in self.members.values() if member.claim.meta in wanted)
                found = islice((meta for meta in known if meta is not None), min(len(wanted), MAX_METAS))
                if told := tuple(found):
                    out.append(Send(source, MetaPut(told)))
            case MetaPut(metas):
                self._learn(now, [(meta, meta.node) for meta in metas[:MAX_METAS]], out)
                for meta in metas[:MAX_METAS]:
                    if self._duplicate.learn(meta):
                        self._dial(now, Seed(meta.public_key, meta.control), out)
                        out.append(Send(self._table.me, self._sync(wants_answer=True)))
            case Unreachable(lane, address):
                fields = {"peer": source, "lane": lane, "address": address}
                is_mine = _is_announced(self.members[self._table.me].meta, lane, address)
                if is_mine and source in self.members and self.reach.complain(now, source, lane, address):
                    out.append(Report("membership.unreachable", fields, "error"))
            case _:
                assert_never(message)
        if refuted:
            self._awareness.note(refuted)

    def _merge(self, now: float, source: NodeId, updates: Sequence[Update], out: Actions) -> int:
        """Take in claims, then ask who told them for the metas that they announce. How many of them were refuted."""
        fresh, refuted = self._table.unknown(updates) if updates else [], 0
        if not fresh:
            return 0
        self._notice_duplicate(now, source, fresh, out)
        for claim in fresh:
            refuted += self._table.merge(now, claim, out, synced=False)
            if claim.node == self._table.me and claim.state != "alive" and self._table.mine.state == "alive":
                out.append(Send(source, Gossip((self._table.mine,))))  # it missed the denial, or has not heard it yet
        self._pull_metas(now, source, [claim.node for claim in fresh], out)
        return refuted

    def _synchronise(self, now: float, source: NodeId, message: Sync, out: Actions) -> int:
        """A push-pull. How many of its claims were refuted. Who differs much from one member does so from others."""
        fresh, was_alone = self._table.unknown(message.updates), self._table.alive_count == 1
        self._notice_duplicate(now, source, fresh, out)
        refuted = sum(self._table.merge(now, claim, out, synced=True) for claim in fresh)
        if was_alone:
            self._table.tell_only_mine()  # nobody is there to be told but those who told
        if len(fresh) > MAX_RIDERS:
            self._compare_within(now, self.timing.probe_interval_s)
        self._learn(now, [(message.meta, source)], out)
        self._pull_metas(now, source, self._table.lacking(dead=False), out)
        if message.wants_answer:
            if self._may_answer(now, source):
                out.append(Send(source, self._sync(wants_answer=False, told=message.updates)))
        elif self._rejoin is not None:
            self._end_rejoin(out, answered=True)
        return refuted

    def _may_answer(self, now: float, source: NodeId) -> bool:
        """Whether to tell this one all that is believed, which is much more than it takes to ask."""
        return self._answered.end(now, source, ANSWER_PAUSE * self.timing.gossip_interval_s)

    def _learn(self, now: float, told: Sequence[tuple[Meta, NodeId]], out: Actions) -> None:
        """Somebody tells who members are: dial those of which that was not known. When they have been told of, too, see
        whether all were that should be."""
        learnt = [meta for meta, node in told if self._table.learn(meta, node, out)]
        for meta in learnt:
            self._dialled.add(meta.node)
            out.append(Dial(meta.node, meta.public_key, meta.control, meta.bulk))
        if learnt:
            self._peer_cache.write_by(now + self.timing.probe_interval_s)
            telling_s = retransmit_limit(self._table.alive_count) * self.timing.gossip_interval_s
            self._compare_within(now, self.timing.probe_interval_s + telling_s)

    def _compare_within(self, now: float, seconds: float) -> None:
        """With one member, whether it believes the same."""
        self._sync_due = min(self._sync_due, now + self._rng.uniform(0.5, 1.0) * seconds)

    def _dial(self, now: float, seed: Seed, out: Actions) -> None:
        node = seed.node
        self._dialled.add(node)
        self._peer_cache.write_by(now + self.timing.probe_interval_s)
        out.append(Dial(node, seed.public_key, seed.control, seed.bulk))

    def _sync(self, *, wants_answer: bool, told: Sequence[Update] = ()) -> Sync:
        """All that this node believes, but what the receiver just told."""
        meta = self.members[self._table.me].meta
        assert meta is not None
        return Sync(wants_answer, meta, self._table.beyond(told))

    def _pull_metas(self, now: float, source: NodeId, lacking: Sequence[NodeId], out: Actions) -> None:
        """Ask for metas of these that are not here; for none that somebody was just asked for."""
        wanted = self._table.ask_metas(now, lacking, self.timing.probe_timeout_s)
        if wanted:
            out.append(Send(source, MetaGet(wanted)))

    def _evidence(self, now: float, source: NodeId, incarnation: int | None, message: Any, out: Actions) -> None:
        """Something came from `source`: it lives. Make sure that both sides know."""
        member = self.members.get(source)
        if source == self._table.me:
            return
        if member is not None:
            is_newer = incarnation is not None and incarnation > member.incarnation
            if member.state == "alive" and not is_newer:
                member.note_contact(now)
                return
            if member.state == "left" and not is_newer:
                return
        if isinstance(message, Sync):
            return  # it told all that it can
        if not self._strangers.end(now, source, self.timing.probe_timeout_s):
            return
        if member is not None and member.state == "suspect":
            member.note_contact(now)
            out.append(Send(source, Gossip((member.claim,))))  # Lifeguard's buddy notice: so it can refute in time
        else:
            out.append(Send(source, self._sync(wants_answer=True)))

    def _notice_duplicate(self, now: float, source: NodeId, updates: Sequence[Update], out: Actions) -> None:
        """Somebody tells of a life of this node that it does not remember: perhaps another process has its key."""
        for claim in updates:
            if claim.node == self._table.me and is_sane(claim) and age(claim) > age(self._table.mine):
                self._duplicate.ask_about(now, source, claim, self.suspicion_s(), out)

    def _on_own_key(self, now: float, message: Any, out: Actions) -> None:
        """A word under this node's own key, which the link has proved: of two processes the later one is silent."""
        if not isinstance(message, Sync) or not self._duplicate.is_other(message.meta):
            return
        if self._duplicate.yields_to(message.meta):
            out.append(Send(self._table.me, self._sync(wants_answer=False)))  # so that the other one can outbid it
            fields = {"control": message.meta.control, "name": message.meta.name}
            out.append(Report("membership.silenced", fields, "error"))
            self.silenced_by, self._left = message.meta, True
            self.deadline = float("inf")
            return
        mine = [claim for claim in message.updates if claim.node == self._table.me]
        self._awareness.note(self._table.outbid_at_once(now, mine, out))
        if message.wants_answer:
            out.append(Send(self._table.me, self._sync(wants_answer=False)))

    def _fail_to_reach(self, now: float, node: NodeId, lane: str, address: str, out: Actions) -> None:
        """A lane did not get through. That says something only of a member that speaks to this node all the same: who
        was silent, as most are in a larger mesh, is asked for a word."""
        member = self.members.get(node)
        if member is None or member.state == "left" or not _is_announced(member.meta, lane, address):
            return  # of a life before this one, or a seed's: the announced one is dialled by now
        if not member.is_up:
            self.reach.fail(node, lane, address)  # in case it comes back, when it is dialled again
            return
        if now - member.heard > self.suspicion_s():
            self.reach.await_word(now, node, lane, address)
            self._detector.ask(node, out)
            return
        if self.reach.fail(node, lane, address):
            fields = {"node": node, "lane": lane, "address": address}
            out.append(Report("membership.unreached", fields, "warning"))
        ways = (False, True) if node in self._links.routes else (False,)  # it has links, where no relay can dial it
        out += [Send(node, Unreachable(lane, address), is_direct) for is_direct in ways]

    # Time ------------------------------------------------------------------------------------------------------------

    def _tick(self, now: float, out: Actions) -> None:
        if self._detector.tick(now, out):
            lacking, others = self._table.lacking(dead=False), self._links.near()
            if lacking and others:
                self._pull_metas(now, self._rng.choice(others), lacking, out)
        self._table.expire(now, out)
        self.reach.expire(now)
        if self.reach.awaits_word:
            for failed in self.reach.take_proved(now, self.members, self.suspicion_s()):
                self._fail_to_reach(now, *failed, out)
        self._links.tick(now, out)
        self._keep_contact(now, out)
        self._ask_way_back(now, out)
        if now >= self._peer_cache.due:
            self._cache_peers(out)

    def _keep_contact(self, now: float, out: Actions) -> None:
        """Ask seeds and cached peers that are not among the living, now and then a dead one, a living one for all."""
        for seed in self._bootstrap.take_due(now, self.alive()):
            if seed.node not in self._dialled:
                self._dial(now, seed, out)
            out.append(Send(seed.node, self._sync(wants_answer=True)))
        out += self._bootstrap.tell_alone(now, has_met=len(self.members) > 1)
        if now >= self._ask_dead_due:
            self._ask_dead_due = now + self.timing.ask_dead_s * self._rng.uniform(0.5, 1.0)
            dead = self._table.dead()
            if dead:
                out.append(Send(self._rng.choice(dead), self._sync(wants_answer=True)))
        if now >= self._sync_due:
            self._sync_due = now + self.timing.sync_interval_s * self._rng.uniform(0.5, 1.0)
            near = self._links.near()
            if near:
                partner = self._rng.choice(near)
                out.append(Send(partner, SyncAsk(self._table.digest())))
                self._pull_metas(now, partner, self._table.lacking(dead=True), out)

    def _gossip(self, now: float, out: Actions) -> None:
        if self._table.alive_count == 1:
            # Alone, there is nobody to tell; whoever is met later gets all by push-pull, where deaths are only doubts.
            self._table.tell_only_mine()
        if not len(self._table.news) or now < self._gossip_due:
            return
        near = self._links.near()
        if not near:
            return
        self._gossip_due = now + self.timing.gossip_interval_s
        for node in self._rng.sample(near, min(GOSSIP_FANOUT, len(near))):
            riders = self._table.riders(node)
            if riders:
                out.append(Send(node, Gossip(riders)))

    def _ask_way_back(self, now: float, out: Actions) -> None:
        rejoin = self._rejoin
        if rejoin is not None:
            out += [Send(node, self._sync(wants_answer=True)) for node in rejoin.take_due(now)]
            if rejoin.is_over:
                self._end_rejoin(out, answered=False)

    def _end_rejoin(self, out: Actions, *, answered: bool) -> None:
        self._rejoin = None
        out.append(Report("membership.rejoined", {"answered": answered}))

    def _cache_peers(self, out: Actions) -> None:
        known = [self.members[node] for node in self._table.reachable()]
        oldest = heapq.nsmallest(MAX_CACHED, known, key=lambda member: (member.up_since, member.claim.node))
        metas = [member.meta for member in oldest if member.meta is not None]
        packed = self._peer_cache.take([Seed(meta.public_key, meta.control, meta.bulk) for meta in metas])
        if packed is not None:
            out.append(Persist("peers", packed))

    def _finish(self, now: float, out: Actions) -> Actions:
        for change in [action for action in out if isinstance(action, Changed)] if out else ():
            self._links.note(change, out)
            if change.new == "alive" and change.old not in ("alive", "suspect"):
                self._detector.add(change.node)
        if not self._left:
            self._gossip(now, out)
            self._arm()
        return out

    def _arm(self) -> None:
        gossip_due = self._gossip_due if len(self._table.news) and self._table.reachable() else float("inf")
        self.deadline = min(
            self._detector.deadline,
            self._sync_due,
            self._ask_dead_due,
            self._peer_cache.due,
            self._bootstrap.deadline,
            gossip_due,
            self._rejoin.due if self._rejoin is not None else float("inf"),
            self._table.next_verdict,
        )


def _is_announced(meta: Meta | None, lane: str, address: str) -> bool:
    """Whether a member says of itself that a lane of it is there; also where it is not known what it says."""
    return meta is None or address == {"control": meta.control, "bulk": meta.bulk}.get(lane)
