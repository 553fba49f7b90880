"""How long does the loop stand still while memory is put behind a large shard?

As the daemon does it, in a thread, beside the same on the loop; fresh memory in both.
"""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

from benchmarks.figure import Figure, Goal, Tell
from dflow_protocols.names import RunId
from dflow_protocols.shards.space import Priority
from dflowd.process.host import Host
from dflowd.shards.room import Granted, Room
from dflowd.shards.store import Store

QUICK = {"megabytes": 200}
PLACE = Priority(RunId("a" * 32), 0)
LOOK_S = 0.0005


async def longest_turn(nbytes: int, is_on_loop: bool) -> tuple[float, float]:
    """Milliseconds: the longest turn of the loop, and until the room was there."""
    loop = asyncio.get_running_loop()
    store = Store(2 * nbytes, "bench")
    room = Room(Host(loop, lambda event: None, print), store, print)
    done: asyncio.Future[Granted] = loop.create_future()
    turns: list[float] = []

    async def watch() -> None:
        while not done.done() or len(turns) < 100:
            began = loop.time()
            await asyncio.sleep(LOOK_S)
            turns.append(loop.time() - began)

    watching = loop.create_task(watch())
    await asyncio.sleep(10 * LOOK_S)
    began = time.perf_counter()
    if is_on_loop:
        done.set_result([store.grant(PLACE, nbytes)])
    else:
        room.grant(PLACE, [nbytes], done.set_result)
    await done
    took = time.perf_counter() - began
    await watching
    room.close()
    store.close()
    return max(turns) * 1e3, took * 1e3


def measure(tell: Tell, *, megabytes: Annotated[int, "of the shard"] = 500) -> list[Figure]:
    on_loop, there_on_loop = asyncio.run(longest_turn(megabytes * 1_000_000, is_on_loop=True))
    in_thread, there_in_thread = asyncio.run(longest_turn(megabytes * 1_000_000, is_on_loop=False))
    return [
        Figure("longest turn of the loop", "ms", in_thread, "on the loop", on_loop, Goal(1.0)),
        Figure("until the room is there", "ms", there_in_thread, "on the loop", there_on_loop),
    ]
