"""Many copy one shard: their own machines, over links of one chunk a tick, in virtual time."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from dflow_protocols.events import Fetched, FetchFailed
from dflow_protocols.names import NodeId, RunId, ShardRef, shard_id
from dflow_protocols.shards.swarm import COPIES_S, MOST_COPIERS, Audience
from dflow_protocols.shards.transfer import (
    ChunkCame,
    CopiersMet,
    CopierTold,
    HashesCame,
    HolderGone,
    HolderLacks,
    SendAsk,
    TransferEvent,
    Transfers,
    Wanted,
)
from dflow_protocols.wire.bulk import Ask

RUN = RunId("1" * 32)
CHUNK_S = 0.04  # of a link: 200 Mbit/s
DELAY_S = 0.002  # of any message
CHUNKS = 200


def node(number: int) -> NodeId:
    return NodeId(f"{number:032x}")


class Host:
    """One node: its fetches, who copies from it, and a link that sends one chunk at a time."""

    def __init__(self, mesh: Mesh, me: NodeId, present: int, chunk_s: float) -> None:
        self.mesh, self.me, self.present, self.chunk_s = mesh, me, present, chunk_s
        self.transfers, self.audience = Transfers(2.0, me), Audience()
        self.sends_until = 0.0
        self.sent = 0
        self.ended_at: float | None = None
        self.is_down = False

    def handle(self, event: TransferEvent) -> None:
        for action in self.transfers.handle(self.mesh.now, event):
            match action:
                case SendAsk(holder, ask):
                    self.mesh.after(DELAY_S, partial(self.mesh.hosts[holder].serve, self, ask))
                case Fetched():
                    self.ended_at = self.mesh.now
                case FetchFailed():
                    raise AssertionError(f"{self.me} failed")
                case _:
                    pass
        self.transfers.check()

    def serve(self, asker: Host, ask: Ask) -> None:
        """As dflowd/shards/serving.py does."""
        if self.is_down:
            return
        if ask.is_copy:
            others = self.audience.ask(self.mesh.now, ask.shard, asker.me)
            if others is not None:
                self.tell(asker, CopiersMet(self.me, ask.shard, others))
            if ask.first == ask.end:
                self.tell(asker, CopierTold(self.me, ask.shard, self.present))
        if ask.with_hashes:
            self.tell(asker, HashesCame(self.me, ask.ticket, self.mesh.hashes))
        for index in range(ask.first, ask.end):
            if self.present >> index & 1:
                self.send(asker, ask.ticket, index)
            else:
                self.tell(asker, HolderLacks(self.me, ask.ticket, index, index + 1))

    def send(self, asker: Host, ticket: int, index: int) -> None:
        self.sends_until = max(self.mesh.now, self.sends_until) + self.chunk_s
        self.sent += 1
        self.mesh.after(self.sends_until - self.mesh.now, lambda: asker.take(self.me, ticket, index))

    def tell(self, asker: Host, event: TransferEvent) -> None:
        """Behind what is being sent, since one link has one order."""
        delay = max(DELAY_S, self.sends_until - self.mesh.now)
        self.mesh.after(delay, lambda: None if asker.is_down or self.is_down else asker.handle(event))

    def take(self, holder: NodeId, ticket: int, index: int) -> None:
        if self.is_down or self.mesh.hosts[holder].is_down:
            return
        if self.transfers.expects(holder, ticket, index) is not None:
            self.present |= 1 << index
            self.audience.grow(self.mesh.now, self.mesh.ref.id)
            self.handle(ChunkCame(holder, ticket, index, True))
            self.mesh.at(self.audience.deadline, self.tell_grown)

    def tell_grown(self) -> None:
        for shard, peers in self.audience.take_grown(self.mesh.now):
            for peer in peers:
                self.tell(self.mesh.hosts[peer], CopierTold(self.me, shard, self.present))


class Mesh:
    """Node 0 is whole; the others have nothing yet."""

    def __init__(self, copiers: int, chunks: int = CHUNKS) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self.hashes = tuple(index.to_bytes(32) for index in range(chunks))
        self.ref = ShardRef(shard_id(chunks << 20, self.hashes), chunks << 20)
        whole = (1 << chunks) - 1
        self.hosts = {node(n): Host(self, node(n), 0 if n else whole, CHUNK_S) for n in range(copiers + 1)}
        self.source, *self.copiers = self.hosts.values()

    def after(self, delay: float, do: Callable[[], object]) -> None:
        heapq.heappush(self._due, (self.now + delay, next(self._numbers), do))

    def at(self, when: float, do: Callable[[], object]) -> None:
        self.after(max(0.0, when - self.now), do)

    def copy(self, host: Host, holders: Sequence[Host], is_copy: bool = True) -> None:
        names = tuple(each.me for each in holders)
        host.handle(Wanted(RUN, self.ref, 0, len(self.hashes), names, host.present, None, is_copy))

    def run(self, is_copy: bool = True) -> float:
        """All begin within a tenth of a second. When the last is whole, in the time that one alone would take."""
        for index, host in enumerate(self.copiers):
            self.after(0.1 * index / len(self.copiers), partial(self.copy, host, [self.source], is_copy))
        while self._due:
            self.now, _, do = heapq.heappop(self._due)
            do()
        living = [host for host in self.copiers if not host.is_down]
        assert all(host.ended_at is not None for host in living)
        return max(host.ended_at or 0.0 for host in living) / (CHUNK_S * len(self.hashes))


@pytest.mark.parametrize(("copiers", "most"), [(1, 1.01), (2, 1.05), (4, 1.1), (8, 1.15), (16, 1.35)])
def test_a_version_is_with_many_nearly_as_soon_as_with_one(copiers: int, most: float) -> None:
    """They take different chunks and give them to each other: the source sends each little more than once."""
    mesh = Mesh(copiers)
    assert mesh.run() <= most
    assert mesh.source.sent <= most * CHUNKS


def test_without_a_swarm_each_copier_costs_its_source_another_one() -> None:
    """What a star costs, and so what the others' links save."""
    mesh = Mesh(4)
    assert mesh.run(is_copy=False) >= 3.9


def test_a_slow_copier_holds_up_nobody() -> None:
    """Of one with a tenth of their pace the others ask little at once, and its share they ask of the source."""
    mesh = Mesh(5)
    mesh.copiers[0].chunk_s = 10 * CHUNK_S
    assert mesh.run() <= 1.85


def test_a_copier_that_dies_holds_up_nobody() -> None:
    """What it alone was to take from the source the others take."""
    mesh = Mesh(4)

    def die() -> None:
        mesh.copiers[0].is_down = True
        for host in (mesh.source, *mesh.copiers[1:]):
            host.handle(HolderGone(mesh.copiers[0].me))

    mesh.after(2.0, die)
    assert mesh.run() <= 1.5


def test_those_who_have_all_of_it_between_them_need_its_source_no_more() -> None:
    """A source that dies when each chunk has been sent once has done enough."""
    mesh = Mesh(4)

    def look() -> None:
        spread = 0
        for host in mesh.copiers:
            spread |= host.present
        is_spread = spread == (1 << CHUNKS) - 1
        mesh.after(5 * CHUNK_S if is_spread else CHUNK_S, die if is_spread else look)

    def die() -> None:
        mesh.source.is_down = True
        for host in mesh.copiers:
            host.handle(HolderGone(mesh.source.me))

    mesh.after(CHUNK_S, look)
    mesh.run()
    assert mesh.source.is_down


def test_a_late_copier_gets_it_from_all_who_have_some() -> None:
    """Who comes in the middle is told of the others, and they of it."""
    mesh = Mesh(3)
    late = mesh.copiers.pop()
    mesh.after(3.0, lambda: mesh.copy(late, [mesh.source]))
    mesh.run()
    assert late.ended_at is not None
    assert mesh.source.sent <= 1.6 * CHUNKS


def test_a_node_is_told_of_a_bounded_number_of_those_who_asked_of_late() -> None:
    """And only when that is news to it."""
    audience, shard = Audience(), Mesh(1, 1).ref.id
    for number in range(40):
        audience.ask(0.0, shard, node(number))
    others = audience.ask(1.0, shard, node(40))
    assert others is not None
    assert len(others) == MOST_COPIERS
    assert audience.ask(1.0, shard, node(40)) is None
    assert audience.ask(2.0 + COPIES_S, shard, node(40)) == ()


def test_what_is_here_is_told_in_few_messages() -> None:
    """Chunks come faster than others need to know."""
    audience, shard = Audience(), Mesh(1, 1).ref.id
    audience.grow(0.0, shard)
    assert audience.take_grown(0.0) == []
    audience.ask(0.0, shard, node(1))
    audience.grow(1.0, shard)
    assert audience.take_grown(1.0) == [(shard, (node(1),))]
    audience.grow(1.001, shard)
    assert audience.take_grown(1.001) == []
    assert audience.take_grown(audience.deadline) == [(shard, (node(1),))]
