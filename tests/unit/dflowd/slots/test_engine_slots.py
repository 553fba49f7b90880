"""What a node relies on when it starts a work: one answer a call, whatever becomes of the engine, and no memory lost.

With real engine children (the emulated engine: no model, real bytes) and a real store.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from dflow_protocols.events import Began, Broke, Finished, RoomMade
from dflow_protocols.names import CHUNK_BYTES, ShardId, ShardRef, hash_shard
from dflow_protocols.shards.space import Priority
from dflow_protocols.work import ApplyWork, InitWork
from tests.support.until import until
from tests.unit.dflowd.slots.bench import DEADLINE_S, RUN, Bench, bench, chain


async def test_a_work_turns_shards_of_the_store_into_shards_of_the_store(tmp_path: Path) -> None:
    """The daemon never sees the bytes: the engine maps them."""
    async with bench(tmp_path) as it:
        params = await it.init()
        done = await it.answer(it.start(chain(params)))
        assert isinstance(done, Finished)
        assert [made.stage for made in done.done.made] == ["roll", "score", "adv"]
        for made in done.done.made:
            assert all(it.store.has(ref.id) for _, ref in made.outputs)
        usage = it.store.usage()
        assert (usage.pinned_count, usage.grants_count) == (0, 0)
        assert [report.name for report in it.reports if report.level == "info"] == ["engine.started"]


async def test_an_engine_that_is_killed_breaks_its_call_and_is_started_again(tmp_path: Path) -> None:
    """The daemon and its other calls live; what the dead engine was granted is free again."""
    async with bench(tmp_path, generate_s=30.0) as it:
        params = await it.init()
        call = it.start(chain(params))
        await it.until(it.is_at_work)
        os.kill(it.child, signal.SIGKILL)
        broke = await it.answer(call)
        assert isinstance(broke, Broke)
        assert (broke.failed.kind, broke.failed.blame) == ("engine", "roll")
        assert "SIGKILL" in broke.failed.error
        usage = it.store.usage()
        assert (usage.pinned_count, usage.grants_count) == (0, 0)
        assert isinstance(await it.answer(it.start(InitWork(), "init")), Finished)


async def test_an_engine_that_falls_silent_is_killed(tmp_path: Path) -> None:
    """A stopped process answers nothing and dies of nothing; only its heartbeat tells."""
    async with bench(tmp_path, generate_s=30.0, silence_s=2.0) as it:
        params = await it.init()
        call = it.start(chain(params))
        await it.until(it.is_at_work)
        os.kill(it.child, signal.SIGSTOP)
        broke = await it.answer(call)
        assert isinstance(broke, Broke)
        assert "silent for" in broke.failed.error


SLOW_BLOCKS = """
import time
from dflowd.training.optimizer import AdamW

step = AdamW._step


def slow(*arguments):
    time.sleep({seconds})
    step(*arguments)


AdamW._step = slow
"""


def slowed(folder: Path, seconds: float) -> dict[str, str]:
    """What makes an engine child take so long for each 65,536 parameters that it applies an update to."""
    (folder / "slow").mkdir()
    (folder / "slow" / "sitecustomize.py").write_text(SLOW_BLOCKS.format(seconds=seconds))
    paths = [str(folder / "slow"), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def apply_of(it: Bench, params: tuple[tuple[str, ShardRef], ...]) -> ApplyWork:
    """An update whose gradient is the parameters themselves."""
    slices = []
    ((_, whole),) = params
    data = Path(it.store.path(whole.id)).read_bytes()[: whole.nbytes]
    for first in range(0, whole.nbytes, CHUNK_BYTES):
        piece = data[first : first + CHUNK_BYTES]
        segment = it.store.grant(Priority(RUN, 0), len(piece))
        segment.view()[:] = piece
        shard, hashes = hash_shard(piece)
        slices.append(it.store.seal(segment, shard, len(piece), hashes))
    return ApplyWork(0, "learn", params, tuple(slices), 0, 1, False)


async def test_an_apply_that_takes_longer_than_the_stall_limit_is_not_killed(tmp_path: Path) -> None:
    """Seven billion parameters take minutes: who says all the while that it goes on is not hung."""
    async with bench(tmp_path, stall_s=2.0, parameters=1_000_000, environment=slowed(tmp_path, 0.25)) as it:
        params = await it.init()
        done = await it.answer(it.start(apply_of(it, params), "apply"))  # sixteen blocks, so four seconds at least
        assert isinstance(done, Finished), done


async def test_an_apply_that_hangs_is_killed_at_the_stall_limit(tmp_path: Path) -> None:
    """It beats, and gets nowhere."""
    async with bench(tmp_path, stall_s=1.0, environment=slowed(tmp_path, 600.0)) as it:
        params = await it.init()
        broke = await it.answer(it.start(apply_of(it, params), "apply"))
        assert isinstance(broke, Broke)
        assert "no progress" in broke.failed.error


async def test_a_daemon_that_slept_does_not_blame_its_engines(tmp_path: Path) -> None:
    """After a pause of the whole process the watch is due before what the engines said meanwhile is read."""
    async with bench(tmp_path, generate_s=1.0, silence_s=2.0) as it:
        params = await it.init()
        call = it.start(chain(params))
        await it.until(it.is_at_work)
        time.sleep(4.0)  # noqa: ASYNC251  the loop stands still, as in a stopped process
        assert isinstance(await it.answer(call), Finished)
        assert not [report for report in it.reports if report.name == "engine.died"]


async def test_a_slot_says_what_it_took_before_it_says_what_ended(tmp_path: Path) -> None:
    """A node gives away what still waits in its queue; what has begun it must know of by the time that it looks."""
    async with bench(tmp_path) as it:
        params = await it.init()
        it.events.clear()
        first, second = it.start(chain(params)), it.start(chain(params))
        assert it.events == [Began(first)]
        await it.answer(second)
        told = [(type(event), event.call) for event in it.events if isinstance(event, Began | Finished)]
        assert told == [(Began, first), (Began, second), (Finished, first), (Finished, second)]


async def test_calls_wait_for_the_slot_in_their_order(tmp_path: Path) -> None:
    """Two works on one device only wait for each other."""
    async with bench(tmp_path, generate_s=0.1) as it:
        params = await it.init()
        numbers = [it.start(chain(params)) for _ in range(3)]
        await it.answer(numbers[-1])
        assert [event.call for event in it.events if isinstance(event, Finished)] == [1, *numbers]


async def test_an_update_is_done_while_the_device_is_taken(tmp_path: Path) -> None:
    """Where the host has a slot of its own, an optimizer passes what waits for a device, and its child is started when
    it is first needed. That child's death is nothing to the device's."""
    slow = slowed(tmp_path, 600.0)
    async with bench(tmp_path, generate_s=600.0, host_slots=1, environment=slow) as it:
        params = await it.init()
        device, host = it.supervisor.standing()["slots"]
        assert (device["kind"], host["kind"], host["pid"]) == ("device", "host", 0)
        sampling, waiting = it.start(chain(params)), it.start(chain(params))
        update = it.start(apply_of(it, params), "apply")
        await it.until(lambda: it.is_at_work() and bool(it.supervisor.standing()["slots"][1]["numerics"]))
        assert [event.call for event in it.events if isinstance(event, Began)].count(update)
        assert not [event for event in it.events if isinstance(event, Began) and event.call == waiting]
        os.kill(int(it.supervisor.standing()["slots"][1]["pid"]), signal.SIGKILL)
        broke = await it.answer(update)
        assert isinstance(broke, Broke), broke
        assert broke.failed.kind == "engine"
        assert it.is_at_work()
        assert not [event for event in it.events if isinstance(event, Broke | Finished) and event.call == sampling]


async def test_a_call_that_was_given_up_is_never_answered_and_frees_the_slot(tmp_path: Path) -> None:
    """The node forgot it; an answer would be of another life."""
    async with bench(tmp_path, generate_s=0.5) as it:
        params = await it.init()
        given_up, waiting, wanted = (it.start(chain(params)) for _ in range(3))
        await it.until(it.is_at_work)
        before, engine = it.store.usage().shards_count, it.child
        it.supervisor.stop(given_up)
        it.supervisor.stop(waiting)
        assert isinstance(await it.answer(wanted), Finished)
        assert {event.call for event in it.events if isinstance(event, Finished | Broke)} == {1, wanted}
        assert it.store.usage().shards_count == before + 3
        assert it.store.usage().grants_count == 0
        assert it.child == engine  # and what it loaded is still there


async def test_a_work_whose_input_vanished_names_it(tmp_path: Path) -> None:
    """The node then looks for the shard elsewhere, or remakes it."""
    async with bench(tmp_path) as it:
        missing = ShardRef(ShardId("cd" * 32), 4)
        broke = await it.answer(it.start(chain((("params:policy", missing),))))
        assert isinstance(broke, Broke)
        assert (broke.failed.kind, broke.failed.blame) == ("lost", missing.id)


async def test_no_room_for_an_output_is_said_so(tmp_path: Path) -> None:
    """It is no fault of the engine, which lives on; and it is another thing whether there could ever be room."""
    async with bench(tmp_path, limit_bytes=8 << 20) as it:
        held = it.store.grant(Priority(RUN, 0), 7 << 20)
        broke = await it.answer(it.start(InitWork(), "init"))
        assert isinstance(broke, Broke)
        assert broke.failed.kind == "full"
        assert it.child != 0
        it.store.release(held)
        await it.until(lambda: RoomMade() in it.events)
        await it.init()


async def test_a_model_that_can_never_fit_is_refused_before_it_is_made(tmp_path: Path) -> None:
    """By what its training will need, in bytes, and by the key that bounds it; not in the middle of a first step."""
    async with bench(tmp_path, limit_bytes=4 << 20) as it:
        broke = await it.answer(it.start(InitWork(), "init"))
        assert isinstance(broke, Broke)
        assert broke.failed.kind == "large"
        assert "shards.memory_limit" in broke.failed.error
        assert it.child != 0


async def test_what_an_engine_reads_from_disk_is_what_was_written(tmp_path: Path) -> None:
    """A disk may rot where memory does not: bytes that are not those of the id are lost, never computed with."""
    async with bench(tmp_path, limit_bytes=1 << 16, is_spilling=True) as it:
        state = await it.init()
        params = state[0][1]
        assert it.store.is_on_disk(params.id)
        apply = ApplyWork(0, "learn", state, (params,), 0, 1, True)
        good = await it.answer(it.start(apply, "apply"))
        assert isinstance(good, Finished)
        handle = os.open(it.store.path(params.id), os.O_RDWR)
        os.pwrite(handle, b"rot", params.nbytes // 2)
        os.close(handle)
        broke = await it.answer(it.start(apply, "apply"))
        assert isinstance(broke, Broke)
        assert (broke.failed.kind, broke.failed.blame) == ("lost", params.id)
        assert not it.store.has(params.id)


async def test_no_engine_outlives_its_supervisor(tmp_path: Path) -> None:
    """A daemon that stops leaves no process behind."""
    async with bench(tmp_path) as it:
        await it.init()
        pid = it.child
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def in_hand(it: Bench, params: tuple[tuple[str, ShardRef], ...]) -> list[int]:
    """Calls for short partitions, of which the engine has several."""
    calls: list[int] = []

    def are_several() -> bool:
        if not it.supervisor.standing()["waiting"]:
            calls[:] = [it.start(chain(params, partition), f"p{partition}") for partition in range(4)]
        return it.is_at_work(2) or it.is_at_work(3) or it.is_at_work(4)

    await it.until(are_several)
    return calls


async def held_up_in_hand(it: Bench, params: tuple[tuple[str, ShardRef], ...]) -> list[int]:
    """Two calls for short partitions in the hand of an engine that is stopped before it begins the first."""
    while True:
        # Whether it is given both depends on what the last one took, which a busy machine makes longer.
        await it.answer(it.start(chain(params)))
        os.kill(it.child, signal.SIGSTOP)
        calls = [it.start(chain(params, partition), f"p{partition}") for partition in range(2)]
        if it.is_at_work(len(calls)):
            return calls
        os.kill(it.child, signal.SIGCONT)
        for call in calls:
            await it.answer(call)


async def test_of_short_partitions_an_engine_has_several_in_its_hand_and_room_for_what_they_make(
    tmp_path: Path,
) -> None:
    """Between two of them it would wait for its daemon as long as it works. All it did not use is free again."""
    async with bench(tmp_path) as it:
        params = await it.init()
        alone = [await it.answer(it.start(chain(params, partition), f"p{partition}")) for partition in range(4)]
        together = [await it.answer(call) for call in await in_hand(it, params)]
        for one, other in zip(alone, together, strict=True):
            assert isinstance(one, Finished)
            assert isinstance(other, Finished)
            assert [made.outputs for made in one.done.made] == [made.outputs for made in other.done.made]
        await it.until(lambda: it.store.usage().grants_count == it.store.usage().pinned_count == 0)


async def test_what_a_killed_engine_had_in_its_hand_is_answered_too(tmp_path: Path) -> None:
    """Nobody would do it again."""
    async with bench(tmp_path) as it:
        params = await it.init()
        calls = await in_hand(it, params)
        os.kill(it.child, signal.SIGKILL)
        for call in calls:
            await it.answer(call)
        usage = it.store.usage()
        assert (usage.pinned_count, usage.grants_count) == (0, 0)


async def with_next(it: Bench, params: tuple[tuple[str, ShardRef], ...]) -> tuple[int, int]:
    """Calls for long partitions: the engine is at the first and has the second in its hand."""
    await it.answer(it.start(chain(params)))
    first, second = it.start(chain(params, 1), "p1"), it.start(chain(params, 2), "p2")
    await it.until(lambda: it.doing.calls == (first,))
    assert not it.supervisor._queue, "the second is with the child"
    return first, second


async def test_an_engine_goes_on_with_its_next_partition_though_the_daemon_is_late(tmp_path: Path) -> None:
    """On a busy host a daemon takes tens of milliseconds to hear of an end and to answer it."""
    async with bench(tmp_path, generate_s=0.2) as it:
        params = await it.init()
        first, second = await with_next(it, params)
        until(lambda: it.doing.calls == (second,), DEADLINE_S)  # meanwhile the loop stands still
        await it.answer(second)
        told = [event for event in it.events if isinstance(event, Began | Finished) and event.call in (first, second)]
        assert [(type(event), event.call) for event in told] == [
            (Began, first),
            (Began, second),
            (Finished, first),
            (Finished, second),
        ]


async def test_a_partition_that_an_engine_has_in_hand_can_be_taken_back(tmp_path: Path) -> None:
    """Another node is idle: it gets what has not begun. The engine takes the next one into its hand instead, and loses
    nothing of what it is at."""
    async with bench(tmp_path, generate_s=0.5) as it:
        params = await it.init()
        first, second = await with_next(it, params)
        third = it.start(chain(params, 3), "p3")
        assert it.supervisor.standing()["waiting"] == 2
        it.supervisor.stop(second)
        await it.until(lambda: not it.supervisor._queue)
        assert it.doing.calls == (first,)
        assert [isinstance(await it.answer(call), Finished) for call in (first, third)] == [True, True]
        assert not [
            event for event in it.events if isinstance(event, Began | Finished | Broke) and event.call == second
        ]
        assert (it.store.usage().pinned_count, it.store.usage().grants_count) == (0, 0)


@pytest.fixture
def breaking_engine(tmp_path: Path) -> dict[str, str]:
    """What makes an engine child fail at every partition once there is a file `broken`, as one does whose device has
    lost its context."""
    (tmp_path / "sitecustomize.py").write_text(
        "import pathlib\n"
        "import dflowd.engines.emulated.payload as payload\n"
        "make = payload.Payload.make\n"
        "def broken(self):\n"
        f"    if pathlib.Path({str(tmp_path / 'broken')!r}).exists():\n"
        "        raise RuntimeError('the device is broken')\n"
        "    return make(self)\n"
        "payload.Payload.make = broken\n"
    )
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}


async def test_what_an_engine_had_in_its_hand_when_it_broke_is_not_blamed(
    tmp_path: Path, breaking_engine: dict[str, str]
) -> None:
    """After a failure the same process fails at whatever comes next: that says nothing of those tasks, and would make a
    node withdraw from their stage."""
    async with bench(tmp_path, environment=breaking_engine) as it:
        params = await it.init()
        calls = await held_up_in_hand(it, params)
        (tmp_path / "broken").touch()
        os.kill(it.child, signal.SIGCONT)
        ends = [await it.answer(call) for call in calls]
        assert [end.failed.kind for end in ends if isinstance(end, Broke)] == ["engine", "stopped"]


async def test_what_waited_in_the_hand_of_an_engine_that_broke_has_not_begun(
    tmp_path: Path, breaking_engine: dict[str, str]
) -> None:
    """It may be stolen meanwhile, and is no try of this host's."""
    async with bench(tmp_path, environment=breaking_engine, generate_s=0.2) as it:
        params = await it.init()
        await it.answer(it.start(chain(params)))
        (tmp_path / "broken").touch()
        first, second = it.start(chain(params, 1), "p1"), it.start(chain(params, 2), "p2")
        assert not it.supervisor._queue, "the second is with the child"
        ends = [await it.answer(call) for call in (first, second)]
        assert [end.failed.kind for end in ends if isinstance(end, Broke)] == ["engine", "stopped"]
        assert [event.call for event in it.events if isinstance(event, Began)][-1] == first
