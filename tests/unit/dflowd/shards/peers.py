"""Nodes with a store and a bulk lane on loopback. What goes over the control lane is handed over in the process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from dflow_protocols.events import Event, Fetch, FetchAdvanced, Fetched, FetchFailed, Report
from dflow_protocols.names import NodeId, RunId, ShardId, ShardRef, chunk_count, hash_shard
from dflow_protocols.shards.space import Priority
from dflow_protocols.work import Product
from dflowd.files.contents import Contents
from dflowd.process.host import Host
from dflowd.shards.exchange import Exchange, SessionMessage
from dflowd.shards.room import Room
from dflowd.shards.store import Store
from dflowd.transport.bulk import BulkLane
from dflowd.transport.router import LinkTiming
from tests.unit.dflowd.transport.lanes import until

RUN, OTHER = RunId("a" * 32), RunId("b" * 32)
Ended: TypeAlias = Fetched | FetchFailed


@dataclass
class Peer:
    id: NodeId
    host: Host
    store: Store
    room: Room
    exchange: Exchange
    contents: Contents
    address: str
    events: list[Event] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    at_advance: Callable[[], None] | None = None

    def post(self, event: Event) -> None:
        """What the exchange tells its node."""
        self.events.append(event)
        if isinstance(event, FetchAdvanced) and self.at_advance is not None:
            self.host.loop.call_soon(self.at_advance)
            self.at_advance = None

    async def in_the_middle(self, do: Callable[[], None]) -> None:
        """Have it done as soon as the first chunk of a fetch is here: before all others are, on the slowest machine."""
        self.at_advance = do
        await until(lambda: self.at_advance is None, "the first chunk")

    def put(self, data: bytes) -> ShardRef:
        segment = self.store.grant(Priority(RUN, 0), len(data))
        segment.view()[:] = data
        shard, hashes = hash_shard(data)
        return self.store.seal(segment, shard, len(data), hashes)

    def put_corrupted(self, data: bytes) -> ShardRef:
        """Hold bytes that are not what they were when they were named."""
        ref = self.put(data)
        self.store._shards[ref.id].segment.view()[-1] ^= 1
        return ref

    def fetch(self, ref: ShardRef, *holders: Peer, first: int = 0, end: int | None = None, run: RunId = RUN) -> None:
        end = chunk_count(ref.nbytes) if end is None else end
        self.exchange.fetch(Fetch(run, ref, first, end, tuple(holder.id for holder in holders)))

    def copy(self, ref: ShardRef, *holders: Peer) -> None:
        """Fetch all of it, as part of a version."""
        names = tuple(holder.id for holder in holders)
        self.exchange.fetch(Fetch(RUN, ref, 0, chunk_count(ref.nbytes), names, product=Product.STATE))

    async def fetched(
        self, ref: ShardRef, *holders: Peer, first: int = 0, end: int | None = None
    ) -> Fetched | FetchFailed:
        """Fetch, and wait for how it ended."""
        seen = len(self.events)
        self.fetch(ref, *holders, first=first, end=end)
        await until(lambda: self.ends(ref.id, seen), f"the fetch of {ref.id[:8]}")
        return self.ends(ref.id, seen)[0]

    def ends(self, shard: ShardId, since: int = 0) -> list[Ended]:
        return [it for it in self.events[since:] if isinstance(it, Fetched | FetchFailed) and it.shard == shard]

    def data(self, ref: ShardRef) -> bytes:
        return bytes(self.store.view(ref.id, 0, chunk_count(ref.nbytes)))

    def close(self) -> None:
        self.exchange.close()
        self.room.close()
        self.store.close()


class Neighbours:
    """Peers that know each other's addresses. `loses(source, target, message)` decides what never arrives."""

    def __init__(self) -> None:
        self.peers: dict[NodeId, Peer] = {}
        self.loses: Callable[[NodeId, NodeId, SessionMessage], bool] = lambda *_: False
        self._ids = (NodeId(f"{number:032x}") for number in range(1, 100))

    def open(
        self,
        fabric: str = "encrypted",
        limit_bytes: int = 256 << 20,
        patience_s: float = 5.0,
        old: Peer | None = None,
    ) -> Peer:
        """A new peer, or a new life of `old` on its address."""
        loop = asyncio.get_running_loop()
        me = old.id if old else next(self._ids)
        timing = LinkTiming(redial_ms=20, redial_max_ms=100)
        lane = BulkLane(me, fabric, timing)
        address = lane.bind(old.address if old else "tcp://127.0.0.1:0")
        store = Store(limit_bytes, f"test-{me[-2:]}")
        reports: list[Report] = []
        host = Host(loop, lambda event: peer.post(event), reports.append)
        room = Room(host, store, lambda run, why: None)

        def tell(target: NodeId, message: SessionMessage) -> None:
            if target in self.peers and not self.loses(me, target, message):
                loop.call_soon(self.peers[target].exchange.on_message, me, message)

        contents = Contents()
        exchange = Exchange(host, store, room, lane, tell, patience_s, contents)
        peer = Peer(me, host, store, room, exchange, contents, address, reports=reports)
        for other in self.peers.values():
            other.exchange.add_peer(me, address)
            exchange.add_peer(other.id, other.address)
        self.peers[me] = peer
        return peer

    def several(self, count: int) -> Iterator[Peer]:
        return (self.open() for _ in range(count))

    def close(self, peer: Peer) -> None:
        del self.peers[peer.id]
        peer.close()

    def close_all(self) -> None:
        for peer in list(self.peers.values()):
            self.close(peer)
