"""Two nodes' lanes and stores, without the nodes: one holds shards, the other fetches, drops, and fetches again.

A time is from `fetch` to its event on the loop, ids verified. `python -m benchmarks.micro.fetch.ours FABRIC` asks;
its holder is a process of its own, started with a folder of keys beside.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.micro.fetch.way import Sample, answer_lines
from benchmarks.scaling.measured import cpu_s
from dflow_protocols.events import Event, Fetch, Fetched
from dflow_protocols.names import NodeId, RunId, ShardRef, chunk_count, hash_shard
from dflow_protocols.shards.space import Priority
from dflow_protocols.wire.bulk import SessionGone, SessionOffer, SessionReady
from dflow_protocols.wire.keys import parse_key
from dflow_protocols.work import Product
from dflowd.process.collector import look_for_cycles_seldom
from dflowd.process.host import Host
from dflowd.shards.exchange import Exchange, SessionMessage
from dflowd.shards.room import Room
from dflowd.shards.store import Store
from dflowd.transport.bulk import BulkLane
from dflowd.transport.control import ControlLane, ReplyTo
from dflowd.transport.keys import AllowList, KeyPair, new_key_pair, read_key_pair, write_key_pair

RUN = RunId("a" * 32)
SPREAD_BYTES, MOST_COUNT = 256 << 20, 64  # of the shards of one length that are held, together
KINDS: dict[str, type[SessionMessage]] = {kind.__name__: kind for kind in (SessionOffer, SessionReady, SessionGone)}


class Peer:
    """A node's lanes and store, without the node."""

    def __init__(self, keys: KeyPair, allow_list: Path, fabric: str, address: str = "127.0.0.1") -> None:
        look_for_cycles_seldom()  # as a daemon does
        loop = asyncio.get_running_loop()
        self.keys = keys
        self.store = Store(1 << 30, "bench")
        host = Host(loop, self._on_event, print)
        self.control = ControlLane(host, keys, AllowList(allow_list))
        self.control_address = self.control.bind(f"tcp://{address}:0")
        lane = BulkLane(keys.id, fabric)
        self.bulk_address = lane.bind(f"tcp://{address}:0")
        self.room = Room(host, self.store, print)
        self.exchange = Exchange(host, self.store, self.room, lane, self._tell)
        self.control.start(self)
        self._waiting: dict[str, asyncio.Future[None]] = {}

    async def fetch(self, ref: ShardRef, holder: NodeId, product: Product = Product.OUTPUT) -> None:
        done = self._waiting[ref.id] = asyncio.get_running_loop().create_future()
        self.exchange.fetch(Fetch(RUN, ref, 0, chunk_count(ref.nbytes), (holder,), product=product))
        await done

    def put(self, data: bytes) -> ShardRef:
        segment = self.store.grant(Priority(RUN, 0), len(data))
        segment.view()[:] = data
        shard, hashes = hash_shard(data)
        return self.store.seal(segment, shard, len(data), hashes)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Fetched):
            self._waiting.pop(event.shard).set_result(None)

    def _tell(self, peer: NodeId, message: SessionMessage) -> None:
        fields = [getattr(message, name).hex() for name in message.__dataclass_fields__]
        self.control.send(peer, json.dumps([type(message).__name__, *fields]).encode())

    def on_revoked(self, peer: NodeId) -> None:
        """Nobody is, here."""

    def on_frame(self, source: NodeId, role: str, data: bytes, link: ReplyTo) -> None:
        kind, *fields = json.loads(data)
        self.exchange.on_message(source, KINDS[kind](*map(bytes.fromhex, fields)))


async def hold(folder: Path, fabric: str) -> None:
    """The holder's process: say where it is; for each line `nbytes`, say which shards of that length are here."""
    host = Peer(read_key_pair(folder / "holder"), folder / "allow", fabric)
    print(json.dumps([host.keys.public_text, host.control_address, host.bulk_address]), flush=True)
    held: list[ShardRef] = []
    while line := await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline):
        host.store.drop(RUN, [ref.id for ref in held])
        nbytes = int(line)
        held = [host.put(os.urandom(nbytes)) for _ in range(min(MOST_COUNT, SPREAD_BYTES // nbytes))]
        print(json.dumps([[ref.id, ref.nbytes] for ref in held]), flush=True)


class Shards:
    """The fetcher, and the process that holds."""

    def __init__(self, fabric: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="dflow-fetch-")  # until this process ends
        folder, lines = Path(self._folder.name), []
        for who in ("holder", "fetcher"):
            keys = new_key_pair()
            write_key_pair(folder / who, keys)
            lines.append(f"{keys.public_text} {who}\n")
        (folder / "allow").write_text("".join(lines))
        command = [sys.executable, "-m", "benchmarks.micro.fetch.ours", fabric, str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._loop = uvloop.new_event_loop()
        self._held: tuple[int, list[ShardRef]] = (0, [])
        self._peer, self._holder = self._loop.run_until_complete(self._open(folder, fabric, self._said()))

    async def _open(self, folder: Path, fabric: str, said: list[str]) -> tuple[Peer, NodeId]:
        key, control, bulk = said
        peer, public = Peer(read_key_pair(folder / "fetcher"), folder / "allow", fabric), parse_key(key)
        holder = KeyPair(public, b"").id
        peer.control.dial(holder, public, control)
        peer.exchange.add_peer(holder, bulk)
        return peer, holder

    def fetch(self, nbytes: int, at_once: int, seconds: float) -> Sample:
        ends = (os.getpid(), self._process.pid)
        refs = itertools.cycle(self._shards(nbytes))
        before, began = cpu_s(ends), time.perf_counter()
        times = self._loop.run_until_complete(self._fetch_all(refs, at_once, began + seconds))
        took = time.perf_counter() - began
        return Sample(nbytes * len(times), took, times, cpu_s(ends) - before)

    async def _fetch_all(self, refs: Iterator[ShardRef], at_once: int, until: float) -> list[float]:
        """So many at once, each followed by the next one at once."""
        times: list[float] = []

        async def one_by_one() -> None:
            while not times or time.perf_counter() < until:
                ref, asked = next(refs), time.perf_counter()
                await self._peer.fetch(ref, self._holder)
                times.append(1e3 * (time.perf_counter() - asked))
                self._peer.store.drop(RUN, [ref.id])

        await asyncio.gather(*(one_by_one() for _ in range(at_once)))
        return times

    def _shards(self, nbytes: int) -> list[ShardRef]:
        """Of this length, held by the other end. The first one of a new length is fetched once: it opens the session,
        and finds memory to use again."""
        if self._held[0] != nbytes:
            assert self._process.stdin is not None
            self._process.stdin.write(f"{nbytes}\n")
            self._process.stdin.flush()
            self._held = (nbytes, [ShardRef(*each) for each in self._said()])
            self._loop.run_until_complete(self._fetch_all(iter(self._held[1]), 1, 0.0))
        return self._held[1]

    def _said(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


if __name__ == "__main__":
    if len(sys.argv) == 2:
        answer_lines(Shards(sys.argv[1]))
    else:
        uvloop.run(hold(Path(sys.argv[2]), sys.argv[1]))
