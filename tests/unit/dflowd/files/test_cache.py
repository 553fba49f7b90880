"""The cache of files that came by wire: bounded, true to what it names, and never outside of its folder."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from dflow_protocols.names import RunId, ShardRef, hash_shard
from dflowd.files.cache import FileCache, NoRoomError
from dflowd.files.contents import Contents

RUN = RunId("a" * 32)


def ref_of(data: bytes) -> ShardRef:
    return ShardRef(hash_shard(data)[0], len(data))


def keep(cache: FileCache, data: bytes, *used: ShardRef) -> ShardRef:
    ref = ref_of(data)
    cache.append(ref, (data,), {each.id for each in used})
    cache.settle(ref)
    return ref


@pytest.fixture
def cache(tmp_path: Path) -> FileCache:
    return FileCache(tmp_path / "files", 100, Contents())


def test_a_file_outlives_the_daemon_and_drafts_and_trees_do_not(tmp_path: Path, cache: FileCache) -> None:
    ref, part = keep(cache, b"whole"), ref_of(b"part")
    cache.append(part, (b"pa",), ())
    cache.lay(RUN, {"a": tmp_path / "files" / "blobs" / ref.id})
    again = FileCache(tmp_path / "files", 100, Contents())
    assert again.find(ref) is not None
    assert again.find(part) is None
    assert again.drafted(part) == 0
    assert not list((tmp_path / "files" / "trees").iterdir())


def test_other_bytes_than_were_named_are_not_kept(cache: FileCache) -> None:
    """A client, or a disk, may say anything."""
    ref = ref_of(b"what was meant")
    cache.append(ref, (b"something else",), ())
    with pytest.raises(ValueError, match="what came is not file"):
        cache.settle(ref)
    assert cache.find(ref) is None
    assert cache.drafted(ref) == 0


def test_a_file_that_the_disk_changed_is_not_found(tmp_path: Path, cache: FileCache) -> None:
    ref = keep(cache, b"as it came")
    blob = tmp_path / "files" / "blobs" / ref.id
    blob.write_bytes(b"as it came!")
    assert cache.find(ref) is None
    assert not blob.exists()


def leave(tmp_path: Path, *refs: ShardRef) -> None:
    """Have been unused for an hour, in this order."""
    for number, ref in enumerate(refs):
        then_s = time.time() - 3600 + number
        os.utime(tmp_path / "files" / "blobs" / ref.id, (then_s, then_s))


def test_the_longest_unused_goes_first_and_what_runs_use_stays(tmp_path: Path, cache: FileCache) -> None:
    first, second = keep(cache, b"1" * 40), keep(cache, b"2" * 40)
    leave(tmp_path, first, second)
    cache.find(first)
    third = keep(cache, b"3" * 40)
    assert [cache.find(ref) is not None for ref in (first, second, third)] == [True, False, True]
    leave(tmp_path, first, third)
    with pytest.raises(NoRoomError, match=r"do not fit beside what active runs use .*files.cache_limit is 100 bytes"):
        keep(cache, b"4" * 40, first, third)
    with pytest.raises(NoRoomError, match=r"101 bytes is more than files.cache_limit, 100 bytes"):
        keep(cache, b"5" * 101)
    assert cache.find(first) is not None


def test_files_of_one_push_do_not_drive_each_other_out(cache: FileCache) -> None:
    """A model that is larger than the cache would be sent for ever, one file in place of the other."""
    first = keep(cache, b"1" * 60)
    with pytest.raises(NoRoomError, match="or what came within the last minute"):
        keep(cache, b"2" * 60)
    assert cache.find(first) is not None


def test_files_that_come_at_once_share_the_room(tmp_path: Path, cache: FileCache) -> None:
    """Each has it from its first byte on; one that nobody sends any more gives it back."""
    first, second = ref_of(b"1" * 60), ref_of(b"2" * 60)
    cache.append(first, (b"1",), ())
    with pytest.raises(NoRoomError):
        cache.append(second, (b"2",), ())
    os.utime(tmp_path / "files" / "drafts" / first.id, (0, 0))
    cache.append(second, (b"2",), ())
    assert (cache.drafted(first), cache.drafted(second)) == (0, 1)


def test_a_run_finds_its_files_by_their_names(tmp_path: Path, cache: FileCache) -> None:
    """Also what its spec names outside of its folder; links, so that nothing lies twice."""
    came, own = keep(cache, b"came"), tmp_path / "own"
    own.write_bytes(b"own")
    blob = tmp_path / "files" / "blobs" / came.id
    tree = cache.lay(RUN, {"data/words.jsonl": blob, "/models/a": own, "../b": blob})
    assert (tree / "data" / "words.jsonl").read_bytes() == b"came"
    assert (tree / "data" / "words.jsonl").stat().st_ino == blob.stat().st_ino
    assert (tree / ".elsewhere" / "root" / "models" / "a").resolve() == own
    assert (tree / ".elsewhere" / "up1" / "b").read_bytes() == b"came"
    cache.tidy([RUN])
    assert tree.is_dir()
    cache.tidy([])
    assert not tree.exists()
    assert own.exists()


@pytest.mark.parametrize("name", [".", "a/..", "data", ""])
def test_a_name_that_is_no_files_is_refused(tmp_path: Path, cache: FileCache, name: str) -> None:
    """Names come from peers."""
    came = keep(cache, b"came")
    blob = tmp_path / "files" / "blobs" / came.id
    with pytest.raises((ValueError, OSError)):
        cache.lay(RUN, {"data/x": blob, name: blob})
