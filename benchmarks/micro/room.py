"""How long the loop stands still while memory is put behind a shard of 500 MB: on the loop, and as the daemon does it.

python benchmarks/micro/room.py
"""

from __future__ import annotations

import asyncio
import os
import time

from dflow_protocols.names import RunId
from dflow_protocols.space import Place
from dflowd.shards.room import Granted, Room
from dflowd.shards.store import Store

NBYTES = 500_000_000
PLACE = Place(RunId("a" * 32), 0)
LOOK_S = 0.0005


async def longest_turn(is_on_loop: bool) -> tuple[float, float]:
    """Milliseconds: the longest turn of the loop, and until the room was there."""
    loop = asyncio.get_running_loop()
    store = Store(2 * NBYTES, "bench")
    room = Room(store, loop, lambda event: None)
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
        done.set_result([store.grant(PLACE, NBYTES)])
    else:
        room.grant(PLACE, [NBYTES], False, done.set_result)
    await done
    took = time.perf_counter() - began
    await watching
    room.close()
    store.close()
    return max(turns) * 1e3, took * 1e3


def main() -> None:
    print(f"load {os.getloadavg()[0]:.1f}")
    for is_on_loop in (True, False):
        turn_ms, took_ms = asyncio.run(longest_turn(is_on_loop))
        where = "on the loop" if is_on_loop else "in a thread"
        print(f"{where}: longest turn {turn_ms:.1f} ms, there after {took_ms:.0f} ms")


if __name__ == "__main__":
    main()
