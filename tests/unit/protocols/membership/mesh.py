"""A small network in virtual time that drives real membership machines; one seed decides all that chance may."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import replace
from random import Random
from typing import Any

from dflow_protocols.clock import NodeClock
from dflow_protocols.events import Dial, Event, Persist, Received, Report, Send, Tick
from dflow_protocols.membership.bootstrap import Seed, decode_peers
from dflow_protocols.membership.machine import Membership
from dflow_protocols.membership.table import Changed
from dflow_protocols.membership.timing import Timing
from dflow_protocols.names import NodeId
from dflow_protocols.wire.frame import decode_frame, encode_frame
from dflow_protocols.wire.gossip import Meta


def meta_of(index: int) -> Meta:
    key = index.to_bytes(4, "big") * 8
    port = 7000 + index
    return Meta(key, f"tcp://127.0.0.1:{port}", f"tcp://127.0.0.1:{port + 1000}", f"n{index}", "cpu", 1, ("rollout",))


class Host:
    """One machine: its disk outlives the process."""

    def __init__(self, index: int, seeds: tuple[Seed, ...]) -> None:
        self.meta = meta_of(index)
        self.node = self.meta.node
        self.seeds = seeds
        self.disk: dict[str, bytes] = {}
        self.incarnation = 0
        self.life: Membership | None = None
        self.clock = NodeClock()
        self.asleep_until = 0.0
        self.late_s = 0.0  # how much later than it should its process gets to run
        self.inbox: list[tuple[NodeId, Any]] = []
        self.dialled: set[NodeId] = set()


class Mesh:
    """Hosts by index. `cut(a, b)` is one-way; what is dialled is remembered, and a send to a stranger is a fault."""

    def __init__(
        self, count: int, *, seed: int, timing: Timing | None = None, loss: float = 0.0, checks: bool = True
    ) -> None:
        """`checks`: whether every machine's invariants are asserted after each event."""
        self.rng = Random(seed)
        self._checks = checks
        self.timing = timing or Timing.local()
        self.now = 0.0
        self.loss = loss
        self.cuts: set[tuple[NodeId, NodeId]] = set()
        self.changes: list[tuple[float, NodeId, Changed]] = []
        self.reports: list[tuple[float, NodeId, Report]] = []
        self.sent = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        first = meta_of(0)
        self.hosts = [Host(i, (Seed(first.public_key, first.control),)) for i in range(count)]
        self._by_id = {host.node: host for host in self.hosts}

    # What happens to hosts --------------------------------------------------------------------------------------------

    def start(self, *indexes: int) -> None:
        for index in indexes:
            host = self.hosts[index]
            host.incarnation += 1
            host.dialled, host.inbox = set(), []
            host.meta = replace(host.meta, born_ms=int(self.now * 1000) + 1)
            cached = decode_peers(host.disk.get("peers", b""))
            life = Membership(
                host.node, host.incarnation, host.meta, self.timing, self.rng, host.seeds, cached, self.now
            )
            host.life, host.clock = life, NodeClock()
            self._arm(host)

    def start_all(self) -> None:
        self.start(*range(len(self.hosts)))

    def crash(self, index: int) -> None:
        self.hosts[index].life = None

    def freeze(self, index: int, seconds: float) -> None:
        """SIGSTOP: what arrives meanwhile waits."""
        self.hosts[index].asleep_until = self.now + seconds
        self._at(self.now + seconds, lambda: self._wake(self.hosts[index]))

    def leave(self, index: int) -> None:
        host = self.hosts[index]
        assert host.life is not None
        self._perform(host, host.life.leave(host.clock.read(self.now, self.now, 0.0)[0]))

    def tell(self, index: int, source: NodeId, message: Any) -> None:
        """A message that no machine sent."""
        self._arrive(self.hosts[index], source, message)

    def cut(self, sources: Iterable[int], targets: Iterable[int]) -> None:
        targets = list(targets)
        self.cuts |= {(self.hosts[a].node, self.hosts[b].node) for a in sources for b in targets}

    def heal(self) -> None:
        self.cuts.clear()

    def hush(self) -> None:
        """Everybody knows everything: nothing is left to be told."""
        for host in self.running():
            assert host.life is not None
            host.life._table.news.clear()

    # What is seen -----------------------------------------------------------------------------------------------------

    def id(self, index: int) -> NodeId:
        return self.hosts[index].node

    def running(self) -> list[Host]:
        return [host for host in self.hosts if host.life is not None]

    def view(self, index: int) -> dict[NodeId, str]:
        life = self.hosts[index].life
        assert life is not None
        return {node: member.state for node, member in life.members.items()}

    def all_see(self, state: str, *indexes: int) -> bool:
        """Whether each of these is in this state for every other running node, and can be sent to if it lives."""
        return all(
            host.life is not None
            and (member := host.life.members.get(self.id(i))) is not None
            and member.state == state
            and (state != "alive" or member.meta is not None)
            for i in indexes
            for host in self.running()
            if host.node != self.id(i)
        )

    def deaths(self) -> list[tuple[float, NodeId, NodeId]]:
        """When, at whom, of whom."""
        return [(at, seen_by, c.node) for at, seen_by, c in self.changes if c.new == "dead"]

    def run(self, seconds: float) -> None:
        self.until(lambda: False, seconds)

    def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Let time pass until the condition holds, at most for so long; whether it holds."""
        end = self.now + seconds
        while not condition():
            if not self._events or self._events[0][0] > end:
                self.now = end
                return condition()
            self.now, _, event = heapq.heappop(self._events)
            event()
        return True

    # Machinery --------------------------------------------------------------------------------------------------------

    def _at(self, when: float, event: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, event))

    def _arm(self, host: Host) -> None:
        life = host.life
        assert life is not None
        due = host.clock.outside(life.deadline)
        if due < float("inf"):
            self._at(due + host.late_s, lambda: self._tick(host, life, due))

    def _tick(self, host: Host, life: Membership, due: float) -> None:
        if host.life is life and host.clock.outside(life.deadline) == due and self.now >= host.asleep_until:
            self._handle(host, Tick())

    def _wake(self, host: Host) -> None:
        if host.life is None or self.now < host.asleep_until:
            return
        self._handle(host, Tick())
        inbox, host.inbox = host.inbox, []
        for source, message in inbox:
            self._arrive(host, source, message)

    def _arrive(self, host: Host, source: NodeId, message: Any) -> None:
        if host.life is None:
            return
        if self.now < host.asleep_until:
            host.inbox.append((source, message))
            return
        host.dialled.add(source)  # an answer can go back over the link that the message came by
        self._handle(host, Received(source, message))

    def _handle(self, host: Host, event: Event) -> None:
        """As a node does it: membership lives in the time in which the process was awake."""
        life = host.life
        assert life is not None
        now, slept_s = host.clock.read(self.now, host.clock.outside(life.deadline), self.timing.probe_timeout_s)
        if slept_s:
            self._perform(host, life.slept(now, slept_s))
        self._perform(host, life.handle(now, event))

    def _perform(self, host: Host, actions: list[Any]) -> None:
        assert host.life is not None
        if self._checks:
            host.life.check()
        for action in actions:
            match action:
                case Send(to, message):
                    assert to in host.dialled, f"{host.meta.name} sends to one that it never dialled: {message}"
                    self._send(host.node, to, message)
                case Dial(node, public_key, control, _):
                    assert self._by_id[node].meta.public_key == public_key
                    assert self._by_id[node].meta.control == control
                    host.dialled.add(node)
                case Persist(key, value):
                    host.disk[key] = value
                case Changed():
                    self.changes.append((self.now, host.node, action))
                case Report():
                    self.reports.append((self.now, host.node, action))
        self._arm(host)

    def _send(self, source: NodeId, to: NodeId, message: Any) -> None:
        self.sent += 1
        if (source, to) in self.cuts or self.rng.random() < self.loss:
            return
        host = self._by_id[to]
        life = host.life
        message = decode_frame(encode_frame(None, (message,))).messages[0]
        delay_s = self.rng.uniform(0.0005, 0.005)
        self._at(self.now + delay_s, lambda: self._arrive(host, source, message) if host.life is life else None)
