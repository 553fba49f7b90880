"""SWIM's failure detector: who is probed next, by whom else, and what follows from silence (sections 3.1 and 4.3).

A round-robin over a shuffled list bounds the time until each member's next probe. An answer, a nack or silence also
says something of this node's own health (Lifeguard section IV-A). Knows nothing of what becomes of a suspect.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from ..events import Rng, Send
from ..names import NodeId
from ..wire.gossip import Ack, Nack, Ping, PingRequest
from .awareness import Awareness
from .reach import Links
from .table import Actions, Table
from .timing import Timing

INDIRECT: Final = 3  # members asked to probe in our place (SWIM's k)
MAX_RELAYS: Final = 256  # probes made for others at a time
NACK_SHARE: Final = 0.8  # of the asker's patience, after which it is told that the target is silent to us, too
FURTHER_SHARE: Final = 0.25  # of it, after which further members are asked: the asker may not reach them
LEAST_SHARE: Final = 0.5  # of the probe timeout: with less patience nobody further is asked, which ends it


@dataclass(slots=True)
class Probe:
    """One member asked. It ends unanswered at `ends_at`; at `indirect_at` others are asked to try."""

    target: NodeId
    sequence: int
    began: float
    indirect_at: float
    ends_at: float
    answered: bool = False
    is_direct: bool = False  # the target itself answered, over its own link
    is_extended: bool = False  # once, since this process slept meanwhile
    relays: tuple[NodeId, ...] = ()
    nacks: set[NodeId] = field(default_factory=set)

    @property
    def next_at(self) -> float:
        return self.ends_at if self.answered or self.relays else min(self.indirect_at, self.ends_at)

    def is_due_through_others(self, now: float) -> bool:
        return not self.answered and self.indirect_at <= now < self.ends_at

    def ask_through(self, relays: tuple[NodeId, ...]) -> None:
        """The indirect probe is on its way, by these."""
        self.relays = relays
        self.indirect_at = float("inf")

    def answer(self, source: NodeId, sequence: int, is_direct: bool) -> bool:
        """An ack came. Whether it ends this probe well, as the target's own or a relay's word."""
        self.is_direct |= is_direct and sequence == self.sequence and source == self.target
        is_new = not self.answered and sequence == self.sequence and (source == self.target or source in self.relays)
        self.answered |= is_new
        return is_new

    def nack(self, source: NodeId, sequence: int) -> None:
        """A relay lives, and found the target silent, too."""
        if sequence == self.sequence and source in self.relays:
            self.nacks.add(source)

    def extend(self, until: float) -> bool:
        """This process slept: what lies in its inbox is read first. Once, so that a node which sleeps again and again
        comes to an end with it, too. Whether it was extended."""
        if self.is_extended:
            return False
        self.is_extended = True
        self.ends_at = max(self.ends_at, until)
        return True

    @property
    def missed(self) -> int:
        """What an unanswered probe says of this node's own health. Relays that are themselves silent speak against
        its own link, not against the target (Lifeguard section IV-A)."""
        return len(self.relays) - len(self.nacks) if self.relays else 1


@dataclass(slots=True)
class Relay:
    """A probe made for another member. At `further_at` others are asked in turn."""

    asker: NodeId
    asked: int  # the asker's sequence
    target: NodeId
    nack_at: float
    further_at: float
    relays: tuple[NodeId, ...] = ()

    @property
    def next_at(self) -> float:
        return min(self.nack_at, self.further_at)

    def ask_through(self, relays: tuple[NodeId, ...]) -> None:
        """The probe goes on by these."""
        self.relays = relays
        self.further_at = float("inf")


class Prober:
    """The order of probes, the one under way, and those made for others."""

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._round: list[NodeId] = []
        self._sequence = rng.randrange(1 << 32)  # so that an answer to an earlier life matches nothing
        self.current: Probe | None = None
        self.relays: dict[int, Relay] = {}

    def begin(self, target: NodeId, now: float, indirect_at: float, ends_at: float) -> Probe:
        """The probe of this round's target is the one under way from now on."""
        self.current = Probe(target, self.next_sequence(), now, indirect_at, ends_at)
        return self.current

    def end(self) -> Probe | None:
        """The probe that was under way; none is any more."""
        ended, self.current = self.current, None
        return ended

    def relay(self, relay: Relay) -> int | None:
        """Probe for another member: the sequence to ping the target with; None if there is no room for one more."""
        if len(self.relays) >= MAX_RELAYS:
            return None
        sequence = self.next_sequence()
        self.relays[sequence] = relay
        return sequence

    def answered(self, source: NodeId, sequence: int) -> Relay | None:
        """An ack came. The probe for another member that it answers, if it does."""
        relay = self.relays.get(sequence)
        is_answered = relay is not None and (relay.target == source or source in relay.relays)
        return self.relays.pop(sequence) if is_answered else None

    def forget_relays(self) -> None:
        self.relays.clear()

    def next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def next_target(self, candidates: Sequence[NodeId], not_yet: Collection[NodeId] = ()) -> NodeId | None:
        """The next of this round that is still a candidate; a new round, shuffled again, when nobody else is left in
        it. Those that are `not_yet` to be probed keep their turn, and hold up nobody. `candidates`: sorted."""
        for _ in range(2):
            put_off: list[NodeId] = []
            while self._round:
                node = self._round.pop()
                at = bisect_left(candidates, node)
                if not candidates[at : at + 1] or candidates[at] != node:
                    continue
                if node not in not_yet:
                    self._round += reversed(put_off)
                    return node
                put_off.append(node)
            self._round = self._rng.sample(candidates, len(candidates))
        return None

    def add(self, node: NodeId) -> None:
        """A member joined: somewhere into the current round, so that a wave of joiners is not probed in one order."""
        self._round.insert(self._rng.randrange(len(self._round) + 1), node)

    def probe_next(self, node: NodeId) -> None:
        """Of the round's members this one comes next."""
        self._round.append(node)

    def unanswered(self, now: float) -> list[tuple[int, Relay]]:
        """Probes for others that it is time to ask further members for."""
        if not self.relays:
            return []
        return [(sequence, relay) for sequence, relay in self.relays.items() if relay.further_at <= now < relay.nack_at]

    def take_silent(self, now: float) -> list[tuple[int, Relay]]:
        """Probes for others that were not answered in time."""
        if not self.relays:
            return []
        silent = [(sequence, relay) for sequence, relay in self.relays.items() if relay.nack_at <= now]
        for sequence, _ in silent:
            del self.relays[sequence]
        return silent

    @property
    def deadline(self) -> float:
        due = self.current.next_at if self.current else inf
        return min(due, *(relay.next_at for relay in self.relays.values())) if self.relays else due


class FailureDetector:
    """One probe a round, direct and then through others; who is silent to all of them becomes a suspect."""

    def __init__(self, table: Table, links: Links, awareness: Awareness, timing: Timing, rng: Rng) -> None:
        self._table = table
        self._links = links
        self._awareness = awareness
        self._timing = timing
        self._rng = rng
        self._prober = Prober(rng)
        self._due = 0.0  # when the next round begins

    @property
    def deadline(self) -> float:
        return min(self._due, self._prober.deadline)

    def begin(self, due: float) -> None:
        """When the first round is due."""
        self._due = due

    def add(self, node: NodeId) -> None:
        """It is up: probe it, too."""
        self._prober.add(node)

    def tick(self, now: float, out: Actions) -> bool:
        """Whether a new round began."""
        for _, relay in self._prober.take_silent(now):
            out.append(Send(relay.asker, Nack(relay.asked)))
        for sequence, relay in self._prober.unanswered(now):
            self._ask_further(now, sequence, relay, out)
        probe = self._prober.current
        if probe is not None and probe.is_due_through_others(now):
            self._probe_through_others(now, probe, out)
        if now < self._due:
            return False
        self._end_round(now, out)
        self._begin_round(now, out)
        return True

    def answered(self, source: NodeId, sequence: int, out: Actions, is_direct: bool = True) -> None:
        """An ack came: to a probe for another member, or to the own one. `is_direct`: over the link to its sender."""
        relay = self._prober.answered(source, sequence)
        if relay is not None:
            out.append(Send(relay.asker, Ack(relay.asked, self._table.riders(relay.asker))))
        if self._prober.current is not None and self._prober.current.answer(source, sequence, is_direct):
            self._awareness.note(-1)

    def ask(self, node: NodeId, out: Actions) -> None:
        """Any word of it is wanted at once. No round's probe ends with the answer."""
        out.append(Send(node, Ping(self._prober.next_sequence(), self._table.riders(node))))

    def nacked(self, source: NodeId, sequence: int) -> None:
        if self._prober.current is not None:
            self._prober.current.nack(source, sequence)

    def relay(self, now: float, asker: NodeId, request: PingRequest, out: Actions) -> None:
        """Probe a member in another one's place; say in time that it is silent to this node, too."""
        member = self._table.members.get(request.target)
        if request.target == self._table.me:
            out.append(Send(asker, Ack(request.sequence, self._table.riders(asker))))
            return
        sequence = None
        if member is not None and member.meta is not None:
            longest_s = self._timing.probe_interval_s * self._timing.awareness_max
            patience_s = min(max(request.deadline_s, 0.0), longest_s)
            asks_further = patience_s >= LEAST_SHARE * self._timing.probe_timeout_s
            further_at = now + FURTHER_SHARE * patience_s if asks_further else float("inf")
            nack_at = now + NACK_SHARE * patience_s
            sequence = self._prober.relay(Relay(asker, request.sequence, request.target, nack_at, further_at))
        if sequence is None:
            out.append(Send(asker, Nack(request.sequence)))
        else:
            out.append(Send(request.target, Ping(sequence, self._table.riders(request.target))))

    def slept(self, now: float, is_dead_to_others: bool) -> None:
        """This process was asleep: silence meanwhile proves nothing."""
        self._prober.forget_relays()
        probe = self._prober.current
        if probe is not None and probe.extend(now + self._timing.probe_timeout_s):
            self._due = probe.ends_at
        if is_dead_to_others:
            self._prober.end()

    def check(self) -> None:
        assert len(self._prober.relays) <= MAX_RELAYS

    def _next_target(self, now: float) -> NodeId | None:
        """Whose turn it is. Who is new, and cannot be sent to yet, has it later: silence to a ping that was never sent
        says nothing, and in a wave of joiners there would be many suspects."""
        members, newest = self._table.members, now - self._timing.stable_s
        late = {node for node in self._table.lacking(dead=False) if members[node].up_since > newest}
        return self._prober.next_target(self._table.others(), late)

    def _begin_round(self, now: float, out: Actions) -> None:
        self._due = now + self._awareness.stretch(self._timing.probe_interval_s)
        target = self._next_target(now)
        if target is None:
            return
        probe = self._prober.begin(target, now, now + self._awareness.stretch(self._timing.probe_timeout_s), self._due)
        if self._table.members[target].meta is not None:
            out.append(Send(target, Ping(probe.sequence, self._table.riders(target)), is_direct=True))
            if target in self._links.routes:
                out.append(Send(target, Ping(probe.sequence, ())))

    def _probe_through_others(self, now: float, probe: Probe, out: Actions) -> None:
        probe.ask_through(self._links.relays(probe.target, INDIRECT, self._rng))
        for relay in probe.relays:
            request = PingRequest(probe.sequence, probe.target, probe.ends_at - now, self._table.riders(relay))
            out.append(Send(relay, request))

    def _ask_further(self, now: float, sequence: int, relay: Relay, out: Actions) -> None:
        """A link that broke is gone round by the next member, and two in a row by way of one that the asker cannot
        reach: before it is known who can talk to whom, nobody else finds out that the target lives. Once it is a
        suspect its own denial does."""
        member = self._table.members.get(relay.target)
        is_believed_alive = member is not None and member.state == "alive"
        asked = self._links.relays(relay.target, INDIRECT, self._rng, relay.asker) if is_believed_alive else ()
        relay.ask_through(asked)
        for node in relay.relays:
            request = PingRequest(sequence, relay.target, relay.nack_at - now, self._table.riders(node))
            out.append(Send(node, request))

    def _end_round(self, now: float, out: Actions) -> None:
        probe = self._prober.end()
        if probe is None or probe.target not in self._table.members:
            return
        if not probe.answered:
            self._awareness.note(probe.missed)
            if self._table.members[probe.target].heard <= probe.began:  # else it lives, and the network is full
                self._links.doubt(probe.target)
                self._table.suspect(now, probe.target, out)
        elif not probe.is_direct and not self._links.miss(probe.target):
            self._prober.probe_next(probe.target)
