"""How fast does a shard come from another process on this host? Throughput of 7 MB, latency of 10 KB.

Two processes with all their lanes, over loopback: one holds, the other fetches, drops, and fetches again. Latencies are
from `fetch` to its event on the loop; a burst is 12 fetches at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Literal

import uvloop

from benchmarks.figure import Figure, Tell
from dflow_protocols.events import Event, Fetch, Fetched
from dflow_protocols.names import NodeId, RunId, ShardRef, chunk_count, hash_shard
from dflow_protocols.shards.space import Priority
from dflow_protocols.wire.bulk import SessionGone, SessionOffer, SessionReady
from dflow_protocols.wire.keys import parse_key
from dflowd.process.host import Host
from dflowd.shards.exchange import Exchange, SessionMessage
from dflowd.shards.room import Room
from dflowd.shards.store import Store
from dflowd.transport.bulk import BulkLane
from dflowd.transport.control import ControlLane, ReplyTo
from dflowd.transport.keys import AllowList, KeyPair, new_key_pair, read_key_pair, write_key_pair

RUN = RunId("a" * 32)
LARGE_BYTES, LARGE_COUNT = 6_900_000, 8
SMALL_BYTES, SMALL_COUNT = 10_000, 400
QUICK = {"seconds": 1.0}
KINDS: dict[str, type[SessionMessage]] = {kind.__name__: kind for kind in (SessionOffer, SessionReady, SessionGone)}


class Peer:
    """A node's lanes and store, without the node."""

    def __init__(self, keys: KeyPair, allow_list: Path, fabric: str) -> None:
        loop = asyncio.get_running_loop()
        self.keys = keys
        self.store = Store(1 << 30, "bench")
        host = Host(loop, self._on_event, print)
        self.control = ControlLane(host, keys, AllowList(allow_list))
        self.control_address = self.control.bind("tcp://127.0.0.1:0")
        lane = BulkLane(keys.id, fabric)
        self.bulk_address = lane.bind("tcp://127.0.0.1:0")
        self.room = Room(host, self.store, print)
        self.exchange = Exchange(host, self.store, self.room, lane, self._tell)
        self.control.start(self)
        self._waiting: dict[str, asyncio.Future[None]] = {}

    async def fetch(self, ref: ShardRef, holder: NodeId) -> None:
        done = self._waiting[ref.id] = asyncio.get_running_loop().create_future()
        self.exchange.fetch(Fetch(RUN, ref, 0, chunk_count(ref.nbytes), (holder,)))
        await done

    def put(self, data: bytes) -> ShardRef:
        segment = self.store.grant(Priority(RUN, 0), len(data))
        segment.view()[:] = data
        shard, hashes = hash_shard(data)
        return self.store.seal(segment, shard, len(data), hashes)

    def close(self) -> None:
        self.exchange.close()
        self.room.close()
        self.control.close()
        self.store.close()

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
    """The holder's process: say what is here, then serve until stdin closes."""
    host = Peer(read_key_pair(folder / "holder"), folder / "allow", fabric)
    large = [host.put(os.urandom(LARGE_BYTES)) for _ in range(LARGE_COUNT)]
    small = [host.put(os.urandom(SMALL_BYTES)) for _ in range(SMALL_COUNT)]
    shards = [[ref.id, ref.nbytes] for ref in large + small]
    print(json.dumps([host.keys.public_text, host.control_address, host.bulk_address, shards]), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    host.close()


async def fetch_all(folder: Path, fabric: str, seconds: float, said: list[str]) -> dict[str, float]:
    host = Peer(read_key_pair(folder / "fetcher"), folder / "allow", fabric)
    key, control, bulk, shards = said[0], said[1], said[2], [ShardRef(*pair) for pair in said[3]]
    public = parse_key(key)
    holder = KeyPair(public, b"").id
    host.control.dial(holder, public, control)
    host.exchange.add_peer(holder, bulk)
    large, small = shards[:LARGE_COUNT], shards[LARGE_COUNT:]
    await host.fetch(small[0], holder)  # opens the session
    figures = {"large_mb_s": await throughput(host, large, holder, seconds)}
    times = await latencies(host, small[1:], holder)
    figures |= {"small_ms_p50": statistics.median(times), "small_ms_p99": times[int(0.99 * len(times))]}
    bursts = []
    for at in range(0, SMALL_COUNT - 12, 12):
        started = time.perf_counter()
        await asyncio.gather(*(host.fetch(ref, holder) for ref in small[at : at + 12]))
        bursts.append(1e3 * (time.perf_counter() - started))
    figures["burst_ms_p50"] = statistics.median(bursts)
    host.close()
    return figures


async def throughput(host: Peer, shards: list[ShardRef], holder: NodeId, seconds: float) -> float:
    fetched, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for first, second in zip(shards[::2], shards[1::2], strict=True):
            await asyncio.gather(host.fetch(first, holder), host.fetch(second, holder))
            host.store.drop(RUN, [first.id, second.id])
            fetched += first.nbytes + second.nbytes
    return fetched / 1e6 / (time.perf_counter() - started)


async def latencies(host: Peer, shards: list[ShardRef], holder: NodeId) -> list[float]:
    times = []
    for ref in shards:
        started = time.perf_counter()
        await host.fetch(ref, holder)
        times.append(1e3 * (time.perf_counter() - started))
        host.store.drop(RUN, [ref.id])
    return sorted(times)


def measure(
    tell: Tell,
    *,
    fabric: Annotated[Literal["encrypted", "trusted"], "what the bulk lane assumes of the network"] = "encrypted",
    seconds: Annotated[float, "of throughput"] = 3.0,
) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = []
        for who in ("holder", "fetcher"):
            keys = new_key_pair()
            write_key_pair(folder / who, keys)
            lines.append(f"{keys.public_text} {who}\n")
        (folder / "allow").write_text("".join(lines))
        command = [sys.executable, "-m", "benchmarks.micro.fetch", name, fabric]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            said = json.loads(child.stdout.readline())
            found = uvloop.run(fetch_all(folder, fabric, seconds, said))
            child.communicate("")
    return [
        Figure("throughput of 6.9 MB shards", "MB a second", found["large_mb_s"]),
        Figure("a shard of 10 KB, median", "ms", found["small_ms_p50"]),
        Figure("a shard of 10 KB, p99", "ms", found["small_ms_p99"]),
        Figure("12 of them at once, median", "ms", found["burst_ms_p50"]),
    ]


if __name__ == "__main__":
    uvloop.run(hold(Path(sys.argv[1]), sys.argv[2]))
