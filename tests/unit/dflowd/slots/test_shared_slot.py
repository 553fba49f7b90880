"""Several partitions in one engine: what becomes of the others when something becomes of one.

With real engine children (the emulated engine, whose batch costs the time of one partition) and a real store.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from dflow_protocols.events import Broke, Finished
from dflow_protocols.names import ShardRef
from dflow_protocols.work import Failed, InitWork
from tests.unit.dflowd.slots.bench import Bench, bench, chain

LONG_S = 600.0  # a partition that ends only because something ends it


def start(it: Bench, params: tuple[tuple[str, ShardRef], ...], partition: int) -> int:
    return it.start(chain(params, partition, at_once=4), f"p{partition}")


async def broken(it: Bench, call: int) -> Failed:
    event = await it.answer(call)
    assert isinstance(event, Broke), event
    return event.failed


def is_clean(it: Bench) -> bool:
    usage = it.store.usage()
    return (usage.pinned_count, usage.grants_count) == (0, 0)


async def test_partitions_in_one_engine_give_what_each_gives_alone(tmp_path: Path) -> None:
    """What their slots do at once is speed, and nothing that a record says."""
    async with bench(tmp_path, generate_s=0.1) as it:
        params = await it.init()
        alone = [await it.answer(it.start(chain(params, partition), f"p{partition}")) for partition in range(4)]
        together = [await it.answer(call) for call in [start(it, params, partition) for partition in range(4)]]
        for one, other in zip(alone, together, strict=True):
            assert isinstance(one, Finished)
            assert isinstance(other, Finished)
            assert [made.outputs for made in one.done.made] == [made.outputs for made in other.done.made]
        assert is_clean(it)


async def test_partitions_in_one_engine_cost_its_slot_no_more_than_its_time(tmp_path: Path) -> None:
    """Thieves reckon with what a partition takes of a slot. Its whole time, part of which was others', would make a
    node that batches look slow."""
    async with bench(tmp_path, generate_s=0.8) as it:
        params = await it.init()
        ends = [await it.answer(call) for call in [start(it, params, partition) for partition in range(4)]]
        taken = [made.seconds for end in ends if isinstance(end, Finished) for made in end.done.made[:1]]
        assert len(taken) == 4
        assert max(taken) < 0.8


async def test_a_partition_that_is_given_up_leaves_the_others_their_engine(tmp_path: Path) -> None:
    """It is somebody else's now; they are not."""
    async with bench(tmp_path, generate_s=1.0) as it:
        params = await it.init()
        calls = [start(it, params, partition) for partition in range(3)]
        await it.until(lambda: it.is_at_work(3))
        child = it.child
        it.supervisor.stop(calls[1])
        assert isinstance(await it.answer(calls[0]), Finished)
        assert isinstance(await it.answer(calls[2]), Finished)
        await it.until(lambda: is_clean(it))
        assert it.child == child
        assert not any(event.call == calls[1] for event in it.events if isinstance(event, Finished | Broke))


async def test_an_error_of_the_users_on_one_partition_is_no_other_ones(tmp_path: Path) -> None:
    """The others go on in the same engine."""
    async with bench(tmp_path, generate_s=0.3, raises=2) as it:
        params = await it.init()
        child = it.child
        calls = [start(it, params, partition) for partition in range(3)]
        assert (await broken(it, calls[1])).kind == "user"
        assert isinstance(await it.answer(calls[0]), Finished)
        assert isinstance(await it.answer(calls[2]), Finished)
        assert it.child == child
        assert is_clean(it)


async def test_a_partition_that_kills_its_engine_is_the_one_that_failed(tmp_path: Path) -> None:
    """The others are stopped, which counts against no task and no host, and may be done together again."""
    async with bench(tmp_path, generate_s=0.3, kills=2) as it:
        params = await it.init()
        calls = [start(it, params, partition) for partition in range(3)]
        failed = await broken(it, calls[1])
        assert failed.kind == "engine"
        assert "SIGKILL" in failed.error
        others = [await it.answer(call) for call in (calls[0], calls[2])]  # one may have been done before
        assert {end.failed.kind for end in others if isinstance(end, Broke)} == {"stopped"}
        again = [start(it, params, partition) for partition in (0, 2)]
        await it.until(lambda: it.is_at_work(2))
        assert [type(await it.answer(call)) for call in again] == [Finished, Finished]
        assert is_clean(it)


async def test_a_partition_that_hangs_is_found_though_others_are_there(tmp_path: Path) -> None:
    """They wait for the baton, and do not hang."""
    async with bench(tmp_path, generate_s=LONG_S, hangs=2, stall_s=2.0) as it:
        params = await it.init()
        calls = [start(it, params, partition) for partition in range(3)]
        failed = [await broken(it, call) for call in calls]
        assert [each.kind for each in failed] == ["stopped", "engine", "stopped"]
        assert "no progress for 2 s" in failed[1].error
        assert is_clean(it)


async def test_partitions_that_an_engine_died_of_together_are_tried_alone(tmp_path: Path) -> None:
    """Nobody can tell which of them it was. Alone it shows, and costs no other one a second time."""
    async with bench(tmp_path, generate_s=LONG_S) as it:
        params = await it.init()
        calls = [start(it, params, partition) for partition in range(2)]
        await it.until(lambda: it.is_at_work(2))
        await it.until(lambda: len(it.doing.calls) == 2)
        os.kill(it.child, signal.SIGKILL)
        assert {(await broken(it, call)).kind for call in calls} == {"stopped"}
        again = [start(it, params, partition) for partition in range(3)]
        await it.until(it.is_at_work)
        assert it.supervisor.standing()["waiting"] == 2
        os.kill(it.child, signal.SIGKILL)
        assert (await broken(it, again[0])).kind == "engine"
        for call in again[1:]:
            it.supervisor.stop(call)
        assert isinstance(await it.answer(it.start(InitWork(), "init")), Finished)
