"""The membership machine: probe, suspect, refute, push-pull, gossip, bootstrap.

SWIM (Das, Gupta, Motivala 2002) with Lifeguard (Dadgar, Phillips, Currey, arXiv 1707.00788). Owns who is believed
alive and where each can be dialled; knows nothing of runs, tasks or sockets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ..events import Dial, Event, Lagged, LaneFailed, LaneOpened, Persist, Received, Report, Rng, Send, Tick
from ..names import NodeId
from ..wire.gossip import Ack, Gossip, Meta, MetaGet, MetaPut, Nack, Ping, PingRequest, Sync, Unreachable, Update
from .awareness import Awareness
from .bootstrap import MAX_CACHED, Bootstrap, Seed, encode_peers
from .broadcast import MAX_RIDERS
from .claim import age, is_sane
from .duplicate import Double
from .probe import INDIRECT, MAX_RELAYS, NACK_SHARE, Probe, Prober, Relay
from .reach import Reach
from .rejoin import Rejoin
from .table import Actions, Changed, Member, Table
from .timing import Timing

GOSSIP_FANOUT: Final = 3  # members told at a time, as memberlist does
MAX_METAS: Final = 256  # asked for or sent in one message, some 80 KB
MAX_FAREWELLS: Final = 64  # members told directly that this node leaves; gossip tells the others
LAG_SHARE: Final = 0.5  # of the probe timeout: a process that runs so late takes live members for silent ones
MAX_STRANGERS: Final = 1_024  # sources remembered so that none is asked who it is more often than once an interval


class Membership:
    """Who is believed alive. `deadline`: when `handle(now, Tick())` is next due."""

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
    ) -> None:
        """`incarnation`: higher than in every earlier life of this node. `cached`: what `Persist("peers")` kept."""
        assert meta.node == me, "a node's id is the hash of its key"
        self.timing = timing
        self._rng = rng
        self._table = Table(me, incarnation, meta, timing, now)
        self._prober = Prober(rng)
        self._awareness = Awareness(timing.awareness_max)
        self._bootstrap = Bootstrap(me, seeds, cached, timing, rng, now)
        self._double = Double(meta)
        self.reach = Reach()
        self._rejoin: Rejoin | None = None
        self._dialled: set[NodeId] = set()
        self._strangers: dict[NodeId, float] = {}
        self._cached: bytes | None = None
        self._cache_due = float("inf")
        self._probe_due = now + rng.uniform(0.0, timing.probe_interval_s)
        self._sync_due = now + rng.uniform(0.5, 1.0) * timing.sync_interval_s
        self._ask_dead_due = now + timing.ask_dead_s
        self._gossip_due = now
        self._left = False
        self._arm()

    # What others ask -------------------------------------------------------------------------------------------------

    @property
    def members(self) -> Mapping[NodeId, Member]:
        """All that were ever heard of, this node included."""
        return self._table.members

    @property
    def incarnation(self) -> int:
        """Of this node; it grows in the middle of a life only if others remember a life that the disk does not."""
        return self._table.mine.incarnation

    def alive(self) -> tuple[NodeId, ...]:
        """Sorted; this node and suspects included, those that cannot be sent to yet, too."""
        return self._table.alive()

    @property
    def is_rejoining(self) -> bool:
        """This node slept for so long that others hold it dead, and has not heard yet what they did meanwhile."""
        return self._rejoin is not None

    @property
    def silenced_by(self) -> Meta | None:
        """The earlier process that lives under this node's key, if one has shown itself: this one says nothing more."""
        return self._double.silenced_by

    @property
    def is_unhealthy(self) -> bool:
        """This node waits as long as it ever does before it takes silence for death."""
        return self._awareness.score == self.timing.awareness_max - 1

    def suspicion_s(self) -> float:
        """The unit of the step protocol's delays, at the mesh's present size."""
        return self.timing.suspicion_s(len(self.alive()))

    # Events ----------------------------------------------------------------------------------------------------------

    def handle(self, now: float, event: Event) -> Actions:
        """Takes Received with a message of wire/gossip.py, Tick, Lagged, LaneOpened and LaneFailed."""
        if self._left:
            return []
        out: Actions = []
        match event:
            case Received(source, message) if source == self._table.me:
                self._meet_double(now, message, out)
            case Received(source, message):
                self._evidence(now, source, None, message, out)
                self._receive(now, source, message, out)
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

        After a sleep longer than the suspicion time it is dead to the others, and asks its way back.
        """
        if self._left:
            return []
        out: Actions = [Report("membership.stalled", {"seconds": round(seconds, 3)}, "warning")]
        self._awareness.note(1)
        self._prober.relays.clear()
        probe = self._prober.current
        if probe is not None and not probe.is_extended:  # a node that sleeps again and again must come to an end, too
            probe.is_extended = True
            # First what lies in the inbox is read.
            self._probe_due = probe.ends_at = max(probe.ends_at, now + self.timing.probe_timeout_s)
        if seconds > self.suspicion_s():
            self._prober.current = None
            for suspicion in self._table.suspicions.values():
                suspicion.restart(now)
            known = self._table.reachable()
            order = self._rng.sample(known, len(known))
            self._rejoin = Rejoin(now, order, self.timing.probe_interval_s, self.suspicion_s())
            self._ask_way_back(now, out)
        return self._finish(now, out)

    def observe(self, now: float, source: NodeId, incarnation: int | None) -> Actions:
        """A message of another protocol came from `source`, which says that this is its incarnation."""
        if self._left:
            return []
        out: Actions = []
        self._evidence(now, source, incarnation, None, out)
        return self._finish(now, out) if out else out  # nearly always nothing: this runs for every message

    def leave(self, now: float) -> Actions:
        """Say goodbye; from then on this machine is silent."""
        farewell = self._table.leave()
        reachable = self._table.reachable()
        told = self._rng.sample(reachable, min(MAX_FAREWELLS, len(reachable)))
        self._left = True
        self.deadline = float("inf")
        return [Send(node, Gossip((farewell,))) for node in told]

    def check(self) -> None:
        """Assert what must hold after every event."""
        self._table.check()
        assert self.timing.awareness_max > self._awareness.score >= 0
        assert len(self._prober.relays) <= MAX_RELAYS
        assert len(self._strangers) <= MAX_STRANGERS
        assert self.reach.unreached.keys() <= self.members.keys()
        assert self._left or self.deadline < float("inf"), "a member that lives always has something due"

    # Messages --------------------------------------------------------------------------------------------------------

    def _receive(self, now: float, source: NodeId, message: Any, out: Actions) -> None:
        match message:
            case Ping(sequence, updates):
                self._hear(now, source, updates, out)
                out.append(Send(source, Ack(sequence, self._riders(source))))
            case PingRequest(sequence, target, deadline_s, updates):
                self._hear(now, source, updates, out)
                self._relay(now, source, sequence, target, deadline_s, out)
            case Ack(sequence, updates):
                self._hear(now, source, updates, out)
                self._answered(source, sequence, out)
            case Nack(sequence):
                probe = self._prober.current
                if probe is not None and probe.sequence == sequence and source in probe.relays:
                    probe.nacks.add(source)
            case Gossip(updates):
                self._hear(now, source, updates, out)
            case Sync():
                self._synchronise(now, source, message, out)
            case MetaGet(metas):
                wanted = frozenset(metas)
                known = (member.meta for member in self.members.values())
                found = tuple(meta for meta in known if meta is not None and meta.id in wanted)
                if found:
                    out.append(Send(source, MetaPut(found[:MAX_METAS])))
            case MetaPut(metas):
                for meta in metas[:MAX_METAS]:
                    self._table.learn(meta, meta.node, out)
                    if self._double.learn(meta, out):
                        out.append(Send(self._table.me, self._sync(wants_answer=True)))
            case Unreachable(lane, address):
                fields = {"peer": source, "lane": lane, "address": address}
                if source in self.members and self.reach.hear(now, source, lane, address):
                    out.append(Report("membership.unreachable", fields, "error"))

    def _hear(self, now: float, source: NodeId, updates: Sequence[Update], out: Actions) -> None:
        """Take in claims, then ask who told them for the metas that they announce."""
        before = self._table.missing_metas(dead=False)
        self._notice_double(now, source, updates, out)
        for claim in updates:
            self._table.hear(now, claim, out, synced=False)
            if claim.node == self._table.me and claim.state != "alive" and self._table.mine.state == "alive":
                out.append(Send(source, Gossip((self._table.mine,))))  # it missed the denial, or has not heard it yet
        self._pull_metas(source, before, out)

    def _synchronise(self, now: float, source: NodeId, message: Sync, out: Actions) -> None:
        self._notice_double(now, source, message.updates, out)
        for claim in message.updates:
            self._table.hear(now, claim, out, synced=True)
        self._table.learn(message.meta, source, out)
        self._pull_metas(source, [], out)
        if message.wants_answer:
            out.append(Send(source, self._sync(wants_answer=False)))
        elif self._rejoin is not None:
            self._end_rejoin(out, answered=True)

    def _sync(self, *, wants_answer: bool) -> Sync:
        meta = self.members[self._table.me].meta
        assert meta is not None
        return Sync(wants_answer, meta, self._table.claims())

    def _pull_metas(self, source: NodeId, before: Sequence[str], out: Actions) -> None:
        missing = [meta for meta in self._table.missing_metas(dead=False) if meta not in before]
        if missing:
            out.append(Send(source, MetaGet(tuple(missing[:MAX_METAS]))))

    def _evidence(self, now: float, source: NodeId, incarnation: int | None, message: Any, out: Actions) -> None:
        """Something came from `source`: it lives. Make sure that both sides know."""
        member = self.members.get(source)
        if source == self._table.me or isinstance(message, Sync):
            return
        if member is not None:
            is_newer = incarnation is not None and incarnation > member.incarnation
            if member.state == "alive" and not is_newer:
                member.heard = now
                return
            if member.state == "left" and not is_newer:
                return
        if now < self._strangers.get(source, now):
            return
        if len(self._strangers) >= MAX_STRANGERS:
            del self._strangers[next(iter(self._strangers))]
        self._strangers[source] = now + self.timing.probe_timeout_s
        if member is not None and member.state == "suspect":
            member.heard = now
            out.append(Send(source, Gossip((member.claim,))))  # Lifeguard's buddy notice: so it can refute in time
        else:
            out.append(Send(source, self._sync(wants_answer=True)))

    def _notice_double(self, now: float, source: NodeId, updates: Sequence[Update], out: Actions) -> None:
        """Somebody tells of a life of this node that it does not remember: perhaps another process has its key."""
        for claim in updates:
            if claim.node == self._table.me and is_sane(claim) and age(claim) > age(self._table.mine):
                self._double.hear(now, source, claim, self.suspicion_s(), out)

    def _meet_double(self, now: float, message: Any, out: Actions) -> None:
        """A word under this node's own key, which the link has proved: of two processes the later one is silent."""
        if not isinstance(message, Sync) or not self._double.is_other(message.meta):
            return
        if self._double.yields_to(message.meta):
            out.append(Send(self._table.me, self._sync(wants_answer=False)))  # so that the other one can outbid it
            fields = {"control": message.meta.control, "name": message.meta.name}
            out.append(Report("membership.silenced", fields, "error"))
            self._double.silenced_by = message.meta
            self._left = True
            self.deadline = float("inf")
            return
        mine = [claim for claim in message.updates if claim.node == self._table.me]
        self._table.outbid_at_once(now, mine, out)
        if message.wants_answer:
            out.append(Send(self._table.me, self._sync(wants_answer=False)))

    def _fail_to_reach(self, now: float, node: NodeId, lane: str, address: str, out: Actions) -> None:
        """A lane did not get through. That says something only of a member that speaks to this node all the same."""
        member = self.members.get(node)
        if member is None or not member.is_up or now - member.heard > self.suspicion_s():
            return
        if self.reach.fail(node, lane, address):
            fields = {"node": node, "lane": lane, "address": address}
            out.append(Report("membership.unreached", fields, "warning"))
        out.append(Send(node, Unreachable(lane, address)))

    # Probes ----------------------------------------------------------------------------------------------------------

    def _probe_next(self, now: float, out: Actions) -> None:
        others = [node for node in self.alive() if node != self._table.me]
        interval_s = self._awareness.stretch(self.timing.probe_interval_s)
        self._probe_due = now + interval_s
        target = self._prober.next_target(others)
        if target is None:
            return
        sequence = self._prober.next_sequence()
        indirect_at = now + self._awareness.stretch(self.timing.probe_timeout_s)
        self._prober.current = Probe(target, sequence, indirect_at, self._probe_due)
        if self.members[target].meta is not None:
            out.append(Send(target, Ping(sequence, self._riders(target))))
        missing = self._table.missing_metas(dead=False)
        reachable = self._table.reachable()
        if missing and reachable:
            out.append(Send(self._rng.choice(reachable), MetaGet(tuple(missing[:MAX_METAS]))))

    def _probe_through_others(self, now: float, probe: Probe, out: Actions) -> None:
        relays = [node for node in self._table.reachable() if node != probe.target]
        probe.relays = tuple(sorted(self._rng.sample(relays, min(INDIRECT, len(relays)))))
        probe.indirect_at = float("inf")
        for relay in probe.relays:
            request = PingRequest(probe.sequence, probe.target, probe.ends_at - now, self._riders(relay))
            out.append(Send(relay, request))

    def _end_probe(self, now: float, probe: Probe, out: Actions) -> None:
        self._prober.current = None
        if probe.answered or probe.target not in self.members:
            return
        # Relays that are themselves silent speak against this node's own link, not against the target.
        missed = len(probe.relays) - len(probe.nacks)
        self._awareness.note(missed if probe.relays else 1)
        self._table.suspect(now, probe.target, out)

    def _answered(self, source: NodeId, sequence: int, out: Actions) -> None:
        relay = self._prober.relays.get(sequence)
        if relay is not None and relay.target == source:
            del self._prober.relays[sequence]
            out.append(Send(relay.asker, Ack(relay.asked, self._riders(relay.asker))))
        probe = self._prober.current
        if probe is None or probe.sequence != sequence or probe.answered:
            return
        if source == probe.target or source in probe.relays:
            probe.answered = True
            self._awareness.note(-1)

    def _relay(self, now: float, asker: NodeId, asked: int, target: NodeId, deadline_s: float, out: Actions) -> None:
        member = self.members.get(target)
        if target == self._table.me:
            out.append(Send(asker, Ack(asked, self._riders(asker))))
        elif member is None or member.meta is None or len(self._prober.relays) >= MAX_RELAYS:
            out.append(Send(asker, Nack(asked)))
        else:
            sequence = self._prober.next_sequence()
            patience_s = min(max(deadline_s, 0.0), self.timing.probe_interval_s * self.timing.awareness_max)
            self._prober.relays[sequence] = Relay(asker, asked, target, now + NACK_SHARE * patience_s)
            out.append(Send(target, Ping(sequence, self._riders(target))))

    def _riders(self, to: NodeId) -> tuple[Update, ...]:
        """News to ride on a message; first of all what is held against the receiver itself."""
        member = self.members.get(to)
        count = len(self.alive())
        if member is None or member.state in ("alive", "left"):
            return self._table.news.take(count)
        return (member.claim, *self._table.news.take(count, MAX_RIDERS - 1))

    # Time ------------------------------------------------------------------------------------------------------------

    def _tick(self, now: float, out: Actions) -> None:
        for _, relay in self._prober.take_silent(now):
            out.append(Send(relay.asker, Nack(relay.asked)))
        probe = self._prober.current
        if probe is not None and not probe.answered and now >= probe.indirect_at and now < probe.ends_at:
            self._probe_through_others(now, probe, out)
        if now >= self._probe_due:
            if probe is not None:
                self._end_probe(now, probe, out)
            self._probe_next(now, out)
        self._table.expire(now, out)
        self.reach.expire(now)
        self._keep_contact(now, out)
        self._ask_way_back(now, out)
        if now >= self._cache_due:
            self._cache_peers(out)

    def _keep_contact(self, now: float, out: Actions) -> None:
        """Ask seeds and cached peers that are not among the living, now and then a dead one, a living one for all."""
        for seed in self._bootstrap.take_due(now, self.alive()):
            if seed.node not in self._dialled:
                self._dialled.add(seed.node)
                out.append(Dial(seed.node, seed.public_key, seed.control, seed.bulk))
            out.append(Send(seed.node, self._sync(wants_answer=True)))
        if now >= self._ask_dead_due:
            self._ask_dead_due = now + self.timing.ask_dead_s * self._rng.uniform(0.5, 1.0)
            dead = [n for n, m in sorted(self.members.items()) if m.state == "dead" and m.meta is not None]
            if dead:
                out.append(Send(self._rng.choice(dead), self._sync(wants_answer=True)))
        if now >= self._sync_due:
            self._sync_due = now + self.timing.sync_interval_s * self._rng.uniform(0.5, 1.0)
            reachable = self._table.reachable()
            if reachable:
                partner = self._rng.choice(reachable)
                out.append(Send(partner, self._sync(wants_answer=True)))
                missing = self._table.missing_metas(dead=True)
                if missing:
                    out.append(Send(partner, MetaGet(tuple(missing[:MAX_METAS]))))

    def _gossip(self, now: float, out: Actions) -> None:
        if len(self.alive()) == 1:
            # Alone, there is nobody to tell; whoever is met later gets all by push-pull, where deaths are only doubts.
            self._table.news.clear()
        if not len(self._table.news) or now < self._gossip_due:
            return
        told = self._table.reachable()
        if not told:
            return
        self._gossip_due = now + self.timing.gossip_interval_s
        for node in self._rng.sample(told, min(GOSSIP_FANOUT, len(told))):
            riders = self._riders(node)
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
        self._cache_due = float("inf")
        known = [self.members[node] for node in self._table.reachable()]
        oldest = sorted(known, key=lambda member: (member.up_since, member.claim.node))[:MAX_CACHED]
        metas = [member.meta for member in oldest if member.meta is not None]
        packed = encode_peers([Seed(meta.public_key, meta.control, meta.bulk) for meta in metas])
        if metas and packed != self._cached:  # a lonely node keeps the addresses of better days
            self._cached = packed
            out.append(Persist("peers", packed))

    def _finish(self, now: float, out: Actions) -> Actions:
        for action in tuple(out):
            match action:
                case Changed(node, old, new, _, _) if new == "alive" and old not in ("alive", "suspect"):
                    self._prober.add(node)
                case Changed(node, _, new, _, restarted) if restarted or new in ("dead", "left"):
                    self.reach.forget(node)
                case Dial(node):
                    self._dialled.add(node)
                    self._cache_due = min(self._cache_due, now + self.timing.gossip_interval_s)
                case Report("membership.refuting"):
                    self._awareness.note(1)
        if not self._left:
            self._gossip(now, out)
            self._arm()
        return out

    def _arm(self) -> None:
        suspicions = (suspicion.deadline for suspicion in self._table.suspicions.values())
        gossip_due = self._gossip_due if len(self._table.news) and self._table.reachable() else float("inf")
        self.deadline = min(
            self._probe_due,
            self._prober.deadline,
            self._sync_due,
            self._ask_dead_due,
            self._cache_due,
            self._bootstrap.deadline,
            gossip_due,
            self._rejoin.due if self._rejoin is not None else float("inf"),
            min(suspicions, default=float("inf")),
        )
