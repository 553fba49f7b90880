"""Space: who gets it, what gives way, and that nobody who could get it waits for ever."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from dflow_protocols.events import Event, RoomMade, Shed
from dflow_protocols.names import CHUNK_BYTES, RunId, ShardId, ShardRef, hash_shard
from dflow_protocols.shards.space import Priority
from dflow_protocols.work import Product
from dflowd.process.host import Host
from dflowd.shards.room import Room
from dflowd.shards.segment import Full, Segment
from dflowd.shards.spill import SpillFolder
from dflowd.shards.store import Store
from tests.unit.dflowd.transport.lanes import until

MIB = 1 << 20
FIRST, SECOND = RunId("a" * 32), RunId("b" * 32)


def put(store: Store, priority: Priority, nbytes: int = MIB) -> ShardRef:
    data = os.urandom(nbytes)
    segment = store.grant(priority, nbytes)
    segment.write(0, memoryview(data))
    shard, hashes = hash_shard(data)
    return store.seal(segment, shard, nbytes, hashes)


def full_store(*priorities: Priority) -> tuple[Store, list[ShardRef], list[ShardId]]:
    """A store of one MiB a priority, all taken, without a disk; the shards, and the list of those that will be shed."""
    store = Store(len(priorities) * MIB, "n0")
    shed: list[ShardId] = []
    store.watch(on_room=lambda: None, on_shed=lambda run, shard: shed.append(shard))
    return store, [put(store, priority) for priority in priorities], shed


def test_what_memory_has_no_room_for_goes_to_disk_and_is_read_as_if_it_had(tmp_path: Path) -> None:
    """A run whose state is larger than the limit is slower, not impossible; and nothing of it is left behind."""
    store = Store(2 * MIB, "n0", SpillFolder(tmp_path / "spill", None))
    refs = [put(store, Priority(FIRST, 0), 1 + index * MIB // 2) for index in range(6)]
    assert store.usage().used_bytes <= 2 * MIB
    assert store.usage().disk_bytes >= 3 * MIB
    for ref in refs:
        end = -(-ref.nbytes // CHUNK_BYTES)
        assert hash_shard(bytes(store.view(ref.id, 0, end)))[0] == ref.id
        with open(store.path(ref.id), "rb") as file:
            assert hash_shard(file.read()[: ref.nbytes])[0] == ref.id
    assert os.listdir(tmp_path / "spill") == []
    store.drop(FIRST, [ref.id for ref in refs])
    assert (store.usage().used_bytes, store.usage().disk_bytes) == (0, 0)
    store.close()
    assert not (tmp_path / "spill").exists()


def test_a_fetch_lands_on_disk_as_in_memory_and_a_part_moves_there_when_it_grows(tmp_path: Path) -> None:
    """Chunks come one by one, for one slice now and for another later; memory may have filled up in between."""
    store = Store(3 * MIB, "n0", SpillFolder(tmp_path / "spill", None))
    data = os.urandom(5 * CHUNK_BYTES + 77)
    shard, _ = hash_shard(data)
    ref = ShardRef(shard, len(data))

    def land(first: int, end: int) -> None:
        store.partial(Priority(FIRST, 0), ref, first, end)
        for index in range(first, end):
            place = store.landing(shard, index)
            assert place is not None
            place[:] = data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
            place.release()
            assert store.landed(shard, index, is_good=True)

    land(0, 2)
    assert not store.is_on_disk(shard)
    land(2, 6)
    assert store.is_on_disk(shard)
    assert bytes(store.view(shard, 0, 6)) == data
    assert store.has(shard)
    assert store.usage().used_bytes == 0
    store.close()


def test_disk_has_a_limit_and_files_of_a_killed_daemon_are_swept(tmp_path: Path) -> None:
    """A full disk would take the records and the log with it."""
    folder = tmp_path / "spill"
    folder.mkdir()
    (folder / "shard-left").write_bytes(b"x")
    store = Store(MIB, "n0", SpillFolder(folder, 2 * MIB))
    assert not (folder / "shard-left").exists()
    for _ in range(3):
        put(store, Priority(FIRST, 0))
    with pytest.raises(Full, match="disk_limit"):
        put(store, Priority(FIRST, 0))
    assert store.can_hold(3 * MIB)
    assert not store.can_hold(3 * MIB + 1)
    store.close()
    store = Store(MIB, "n0", SpillFolder(folder, None, spare_bytes=1 << 60))
    assert not store.can_hold(MIB + 1)
    with pytest.raises(Full, match="would leave less"):
        put(store, Priority(FIRST, 0), 2 * MIB)
    store.close()


def test_the_newest_that_can_be_made_again_is_shed_for_an_older_step() -> None:
    """The oldest step must always be able to go on; what a later one made is remade when its time comes."""
    store, refs, shed = full_store(Priority(FIRST, 5), Priority(FIRST, 7), Priority(FIRST, 6), Priority(FIRST, 4))
    put(store, Priority(FIRST, 5))
    assert shed == [refs[1].id]
    put(store, Priority(FIRST, 4), 2 * MIB)
    assert shed[1] == refs[2].id
    assert len(shed) == 3  # the third is that of step 5 made last, or first: both are newer than 4
    assert store.has(refs[3].id)
    store.close()


def test_nothing_gives_way_to_a_later_step_nor_to_its_own() -> None:
    """Two requests that could each push the other's bytes out would do so for ever."""
    store, refs, shed = full_store(Priority(FIRST, 5), Priority(FIRST, 6))
    for priority in (Priority(FIRST, 6), Priority(FIRST, 7), Priority(SECOND, 0)):
        with pytest.raises(Full):
            store.grant(priority, MIB)
    assert shed == []
    assert all(store.has(ref.id) for ref in refs)
    store.close()


def test_what_ends_a_step_finds_room_where_its_blocks_fill_the_store() -> None:
    """Else a node full of summed gradients could never take the slices that would free them; nor a late one a copy."""
    block = Priority(FIRST, 3, Product.BLOCK)
    for product in (Product.OUTPUT, Product.SLICE, Product.STATE):
        store, refs, shed = full_store(block, block)
        put(store, Priority(FIRST, 3, product))
        assert len(shed) == 1
        assert shed[0] in {ref.id for ref in refs}
        store.close()


def test_states_and_what_is_being_read_never_give_way() -> None:
    """A version may be the only copy; and an engine maps what is pinned."""
    store, _, shed = full_store(Priority(SECOND, 9, Product.STATE))
    with pytest.raises(Full):
        store.grant(Priority(FIRST, 0), MIB)
    store.close()
    store, (ref,), shed = full_store(Priority(SECOND, 9))
    store.pin(ref.id)
    with pytest.raises(Full):
        store.grant(Priority(FIRST, 0), MIB)
    store.unpin(ref.id)
    assert store.grant(Priority(FIRST, 0), MIB)
    assert shed == [ref.id]
    store.close()


def test_a_shard_of_two_runs_stays_for_the_one_that_is_first() -> None:
    """Equal content is one shard; it counts for the older of its priorities."""
    store = Store(MIB, "n0")
    data = b"same" * (MIB // 4)
    shard, hashes = hash_shard(data)
    segment = store.grant(Priority(FIRST, 1), MIB)
    store.seal(segment, shard, MIB, hashes)
    store.partial(Priority(SECOND, 0), ShardRef(shard, MIB), 0, 1)
    with pytest.raises(Full):
        store.grant(Priority(FIRST, 2), MIB)
    assert store.has(shard)
    store.close()


def test_what_is_freed_goes_to_the_oldest_that_waits_and_it_is_told() -> None:
    """While what it needs is in use by a later one, even that one's next request has to stand back."""
    store = Store(2 * MIB, "n0")
    told: list[int] = []
    store.watch(on_room=lambda: told.append(1), on_shed=lambda run, shard: None)
    later = [store.grant(Priority(SECOND, 0), MIB) for _ in range(2)]
    with pytest.raises(Full):
        store.grant(Priority(FIRST, 3), 2 * MIB)
    store.release(later[0])
    assert told == [1]
    with pytest.raises(Full, match="an older step waits"):
        store.grant(Priority(SECOND, 0), MIB)
    store.release(later[1])
    assert told == [1, 1]
    assert store.grant(Priority(FIRST, 3), 2 * MIB)
    store.close()


async def test_requests_that_wait_are_granted_oldest_first_and_small_ones_at_once() -> None:
    """Memory is put behind large segments in a thread, one after the other; the loop never waits for it."""
    store = Store(256 * MIB, "n0")
    room = Room(Host(asyncio.get_running_loop(), print, print), store, print)
    order: list[str] = []

    def ask(name: str, priority: Priority, nbytes: int) -> None:
        room.grant(priority, [nbytes], lambda granted: order.append(name))

    ask("small", Priority(SECOND, 9), 1000)
    assert order == ["small"]
    ask("begun", Priority(SECOND, 9), 30 * MIB)
    ask("late", Priority(SECOND, 1), 2 * MIB)
    ask("older", Priority(FIRST, 7), 2 * MIB)
    ask("oldest", Priority(FIRST, 2), 2 * MIB)
    assert order == ["small"]
    await until(lambda: len(order) == 5)
    assert order == ["small", "begun", "oldest", "older", "late"]
    room.close()
    store.close()


async def test_memory_goes_back_to_the_machine_in_a_thread() -> None:
    """To unmap the state of a large model takes seconds: on the loop, others would take this node for dead."""
    store = Store(64 * MIB, "n0")
    room = Room(Host(asyncio.get_running_loop(), print, print), store, print)
    refs = [put(store, Priority(FIRST, 0), 12 * MIB + index) for index in range(4)]
    paths = [store.path(ref.id) for ref in refs]
    assert all(map(os.path.exists, paths))
    is_waiting = threading.Event()
    room._worker.submit(is_waiting.wait)
    store.drop(FIRST, [ref.id for ref in refs])
    assert store.usage().recycled_bytes == 12 * MIB + MIB  # the newest: it fits into the share that is kept
    assert all(map(os.path.exists, paths)), "closed by who dropped it"
    is_waiting.set()
    await until(lambda: not any(map(os.path.exists, paths[:3])))
    room.close()
    store.close()


def test_what_was_taken_from_recycled_memory_goes_before_the_new_lies_there() -> None:
    """Else a host whose memory is full by its limit would have both at once, and run out of it."""
    store = Store(16 * MIB, "n0")
    first = store.grant(Priority(FIRST, 0), 4 * MIB)
    path = first.path
    store.release(first)
    assert not store.is_quick([(13 * MIB, 0, 13)], 16 * MIB)
    store.grant(Priority(FIRST, 0), 13 * MIB)
    assert not os.path.exists(path)
    store.close()


def test_a_disk_that_is_full_sheds_no_more_than_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has room again only when a file is closed, which is not left to the thread: else one shard after the other
    would go, and in the end nothing would have been gained."""
    folder, whole = tmp_path / "spill", os.statvfs(tmp_path)

    def small_disk(path: Path) -> os.statvfs_result:
        """As if it had four MiB."""
        files = [entry for entry in os.scandir("/proc/self/fd") if str(folder) in os.readlink(entry.path)]
        left = 4 * MIB - sum(os.stat(file.path).st_blocks * 512 for file in files)
        return os.statvfs_result((1, 1, left, left, left, *tuple(whole)[5:]))

    store, shed = Store(MIB, "n0", SpillFolder(folder, None, spare_bytes=0)), list[ShardId]()
    store.watch(on_room=lambda: None, on_shed=lambda run, shard: shed.append(shard))
    put(store, Priority(FIRST, 0))  # all of the memory
    monkeypatch.setattr(os, "statvfs", small_disk)
    later = [put(store, Priority(SECOND, step)) for step in range(4)]
    put(store, Priority(FIRST, 1))
    assert shed == [later[-1].id]
    store.close()


def test_who_is_refused_again_and_again_leaves_no_open_files() -> None:
    """A node that is full asks until something is freed, which may take long."""
    store, _, _ = full_store(Priority(FIRST, 0))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(Full):
            store.grant(Priority(SECOND, 0), MIB)
    assert len(os.listdir("/proc/self/fd")) == before
    store.close()


async def test_a_request_that_is_dropped_while_it_waits_takes_nothing() -> None:
    """A cancelled run must not get memory that nobody will ever give back."""
    store = Store(256 * MIB, "n0")
    room = Room(Host(asyncio.get_running_loop(), print, print), store, print)
    told: list[int | Full] = []
    shards = [ShardId(str(digit) * 64) for digit in range(3)]
    for shard in shards:
        room.fetch(Priority(FIRST, 0), ShardRef(shard, 20 * MIB), 0, 20, told.append)
    room.drop(FIRST, shards)
    done: list[list[Segment] | Full] = []
    room.grant(Priority(FIRST, 9), [2 * MIB], done.append)
    await until(lambda: bool(done))
    assert told == []
    assert store.usage().used_bytes == 2 * MIB
    room.close()
    store.close()


async def test_the_node_hears_of_what_was_shed_and_of_room() -> None:
    """It has to forget what is gone, and need not poll for space."""
    store = Store(MIB, "n0")
    events: list[Event] = []
    refused: list[RunId] = []
    host = Host(asyncio.get_running_loop(), events.append, print)
    room = Room(host, store, lambda run, why: refused.append(run))
    ref = put(store, Priority(SECOND, 1))
    granted: list[list[Segment] | Full] = []
    room.grant(Priority(FIRST, 0), [MIB], granted.append)
    await until(lambda: Shed(SECOND, ref.id) in events)
    await until(lambda: bool(granted))
    assert isinstance(granted[0], list)
    room.grant(Priority(FIRST, 1), [MIB], granted.append)
    await until(lambda: len(granted) == 2)
    assert isinstance(granted[1], Full)
    assert refused == [FIRST]
    store.release(granted[0][0])
    await until(lambda: RoomMade() in events)
    room.close()
    store.close()
