"""The store of shards: what is bounded, shared, pinned, and gone with its process."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dflow_protocols.names import CHUNK_BYTES, RunId, ShardId, ShardRef, hash_shard
from dflow_protocols.shards.space import Priority
from dflow_protocols.work import Product
from dflowd.shards.segment import Full, capacity_for, chunk_mask, runs_of
from dflowd.shards.store import Store

MIB = 1 << 20
RUN, OTHER = RunId("a" * 32), RunId("b" * 32)
PLACE = Priority(RUN, 0)


def put(store: Store, data: bytes, run: RunId = RUN, product: Product = Product.OUTPUT) -> ShardRef:
    """Store a shard as an engine does: room, bytes, hashes."""
    segment = store.grant(Priority(run, 0, product), len(data))
    segment.view()[:] = data
    shard, hashes = hash_shard(data)
    return store.seal(segment, shard, len(data), hashes)


def test_an_engine_maps_a_shard_by_its_path_and_sees_its_bytes() -> None:
    """Engines get no copy: they open the daemon's segment through /proc, and it shows in their maps by name."""
    store = Store(8 * MIB, "n0")
    ref = put(store, b"tokens" * 1000)
    store.pin(ref.id)
    with open(store.path(ref.id), "rb") as file, mmap.mmap(file.fileno(), ref.nbytes, prot=mmap.PROT_READ) as mapped:
        assert mapped[:6] == b"tokens"
        assert "memfd:dflowd-n0" in Path("/proc/self/maps").read_text()
    assert store.view(ref.id, 0, 1) == b"tokens" * 1000
    store.close()


def test_the_limit_holds_and_says_its_figures() -> None:
    """A store that grew past its limit would take the host with it."""
    store = Store(4 * MIB, "n0")
    held = [store.grant(PLACE, MIB) for _ in range(4)]
    with pytest.raises(Full) as caught:
        store.grant(PLACE, 1)
    assert (caught.value.used, caught.value.limit) == (4 * MIB, 4 * MIB)
    store.release(held[0])
    assert store.grant(PLACE, MIB)
    assert store.usage().used_bytes == 4 * MIB
    store.close()


def test_recycled_memory_is_given_up_before_anything_is_refused() -> None:
    """What is kept for speed must never cost a refusal."""
    store = Store(16 * MIB, "n0")
    store.release(store.grant(PLACE, 3 * MIB))
    assert store.usage().recycled_bytes == 3 * MIB
    store.grant(PLACE, 14 * MIB)
    assert store.usage().recycled_bytes == 0
    store.close()


def test_a_freed_segment_serves_the_next_shard_of_its_size() -> None:
    """A fresh segment of a gradient's size costs milliseconds of page faults in every step."""
    store = Store(64 * MIB, "n0")
    first = store.grant(PLACE, 7 * MIB - 100)
    number = first.number
    store.release(first)
    assert store.grant(PLACE, 7 * MIB - 5000).number == number
    store.close()


def test_an_engine_writes_again_where_an_engine_wrote_before() -> None:
    """Pages that a process has yet to write for the first time cost it more than what it computes on them."""
    store = Store(64 * MIB, "n0")
    made = [store.grant(PLACE, 3 * MIB) for _ in range(2)]
    paths = {segment.path for segment in made}
    fetched = ShardRef(ShardId("f" * 64), 3 * MIB)
    store.partial(PLACE, fetched, 0, 3)
    landed = store.path(fetched.id)
    store.drop(RUN, [fetched.id])
    for segment in made:
        store.release(segment)
    assert {store.grant(PLACE, 3 * MIB).path for _ in range(2)} == paths
    store.partial(PLACE, fetched, 0, 3)
    assert store.path(fetched.id) == landed
    store.close()


def test_a_version_that_went_is_the_room_of_the_next_one_until_the_run_is_over() -> None:
    """Fresh memory costs as much time as the update that is written there; a run that is over needs none."""
    store = Store(16 * MIB, "n0")
    old, new = (put(store, bytes([at]) * 6 * MIB, product=Product.STATE) for at in range(2))
    store.drop(RUN, [old.id])
    assert store.usage().recycled_bytes == 6 * MIB, "more than the share of the limit that is kept of anything"
    store.drop(RUN, [new.id])
    assert store.usage().recycled_bytes <= 4 * MIB
    store.close()


def test_equal_content_is_one_shard_until_its_last_run_drops_it() -> None:
    """Two runs, or two attempts at one task, may make the same bytes."""
    store = Store(8 * MIB, "n0")
    ref, again = put(store, b"x" * 5000), put(store, b"x" * 5000, OTHER)
    assert ref == again
    assert store.usage().shards_count == 1
    assert set(store.usage().by_run) == {RUN, OTHER}
    store.drop(RUN, [ref.id])
    assert store.has(ref.id)
    store.drop(OTHER, [ref.id, ShardId("c" * 64)])
    assert not store.has(ref.id)
    assert store.usage().used_bytes == 0
    store.close()


def test_a_pinned_shard_outlives_its_drop_and_no_more() -> None:
    """An engine call reads what a cancel has dropped; the memory must not be someone else's meanwhile."""
    store = Store(8 * MIB, "n0")
    ref = put(store, b"read me" * 1000)
    store.pin(ref.id)
    view = store.view(ref.id, 0, 1)
    store.drop(RUN, [ref.id])
    assert not store.has(ref.id)
    put(store, b"another" * 1000)
    assert view == b"read me" * 1000
    store.unpin(ref.id)
    assert store.usage().shards_count == 1
    store.close()


def test_hashes_that_are_not_the_ids_are_refused() -> None:
    """An id that does not follow from the bytes would poison every join by id."""
    store = Store(8 * MIB, "n0")
    segment = store.grant(PLACE, 100)
    shard, hashes = hash_shard(b"a" * 100)
    with pytest.raises(ValueError, match="not those"):
        store.seal(segment, shard, 99, hashes)
    with pytest.raises(ValueError, match="not those"):
        store.seal(segment, shard, 100, [b"0" * 32])
    store.release(segment)
    assert store.usage().used_bytes == 0
    store.close()


def test_a_range_costs_only_its_own_memory_and_is_whole_chunk_by_chunk() -> None:
    """A slice's owner fetches a part of many gradients; whole buffers for each would not fit."""
    store = Store(16 * MIB, "n0")
    data = os.urandom(10 * CHUNK_BYTES + 123)
    shard, _ = hash_shard(data)
    ref = ShardRef(shard, len(data))
    assert store.partial(PLACE, ref, 2, 4) == 0
    assert store.usage().used_bytes == 2 * MIB
    for index in (2, 3):
        place = store.landing(shard, index)
        assert place is not None
        place[:] = data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
        store.landed(shard, index, is_good=True)
    assert store.landing(shard, 5) is None  # no memory was granted there
    assert store.has_range(shard, 2, 4)
    assert not store.has_range(shard, 1, 4)
    assert not store.has(shard)
    assert store.view(shard, 2, 4) == data[2 * CHUNK_BYTES : 4 * CHUNK_BYTES]
    with pytest.raises(KeyError):
        store.view(shard, 0, 3)
    store.close()


def test_a_chunk_that_failed_its_check_is_not_there() -> None:
    """Only verified bytes count, and another holder may still bring them."""
    store = Store(8 * MIB, "n0")
    shard, _ = hash_shard(b"good")
    store.partial(PLACE, ShardRef(shard, 4), 0, 1)
    place = store.landing(shard, 0)
    assert place is not None
    place[:] = b"evil"
    store.landed(shard, 0, is_good=False)
    assert not store.has(shard)
    assert store.landing(shard, 0) is not None
    store.close()


def test_a_shard_made_here_ends_its_own_fetch() -> None:
    """The engine may finish what a fetch was bringing; who still writes or reads the part is not disturbed."""
    store = Store(8 * MIB, "n0")
    data = b"z" * 3000
    shard, _ = hash_shard(data)
    store.partial(Priority(OTHER, 0), ShardRef(shard, 3000), 0, 1)
    place = store.landing(shard, 0)
    assert place is not None
    put(store, data)
    put(store, b"y" * 3000)  # would take the part's memory, were it free
    place[:] = b"!" * 3000
    store.landed(shard, 0, is_good=False)
    assert store.view(shard, 0, 1) == data
    assert store.usage().used_bytes == 2 * capacity_for(3000)
    store.close()


def test_a_drop_in_the_middle_of_a_landing_frees_after_it() -> None:
    """A cancel must not hand memory on that the bulk lane is writing to."""
    store = Store(8 * MIB, "n0")
    shard, _ = hash_shard(b"good")
    store.partial(PLACE, ShardRef(shard, 4), 0, 1)
    assert store.landing(shard, 0) is not None
    store.drop(RUN, [shard])
    assert store.usage().used_bytes > 0
    store.landed(shard, 0, is_good=True)
    assert store.usage().used_bytes == 0
    store.close()


def test_killing_the_daemon_frees_its_shared_memory() -> None:
    """Nothing may be left behind that only a reboot or a sweep would free."""
    script = (
        "import sys, time\n"
        "from dflow_protocols.shards.space import Priority\nfrom dflowd.shards.store import Store\n"
        "store = Store(64 << 20, 'victim')\n"
        "segment = store.grant(Priority('a' * 32, 0), 32 << 20)\n"
        "segment.view()[:4] = b'here'\n"
        "print(segment.path, flush=True)\n"
        "time.sleep(600)\n"
    )
    before = set(os.listdir("/dev/shm"))
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    path = child.stdout.readline().strip()
    with open(path, "rb") as file:
        assert file.read(4) == b"here"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert not os.path.exists(path)
    assert set(os.listdir("/dev/shm")) - before == set()


@pytest.mark.parametrize("chunks", [set(), {0}, {3}, {0, 1, 2}, {1, 2, 5, 6, 9}])
def test_runs_of_a_bitmap_are_its_set_bits(chunks: set[int]) -> None:
    """Ranges are asked for, granted and reported as runs."""
    bitmap = sum(1 << index for index in chunks)
    assert {index for first, end in runs_of(bitmap) for index in range(first, end)} == chunks
    assert sum(chunk_mask(first, end) for first, end in runs_of(bitmap)) == bitmap


def test_what_a_run_drops_of_bytes_that_a_work_just_made_stays_until_the_run_hears_of_it() -> None:
    """It means what it had of the same bytes for another end; the work's end is still on its way to it."""
    store = Store(8 * MIB, "n0")
    ref = put(store, b"zeros")
    put(store, b"zeros")
    store.made(RUN, [ref.id])
    store.drop(RUN, [ref.id])
    assert store.has(ref.id)
    store.told(RUN, [ref.id])
    assert store.has(ref.id)
    store.drop(RUN, [ref.id])
    assert not store.has(ref.id)
    store.close()
