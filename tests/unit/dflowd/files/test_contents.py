"""Files by what they hold: a name is never trusted."""

from __future__ import annotations

import os
from pathlib import Path

from dflow_protocols.names import CHUNK_BYTES, hash_shard
from dflowd.files.contents import Contents


def test_a_file_is_told_as_the_shard_that_its_bytes_make(tmp_path: Path) -> None:
    contents = Contents()
    for nbytes in (0, 5, CHUNK_BYTES, 2 * CHUNK_BYTES + 7):
        data = os.urandom(nbytes)
        (tmp_path / "file").write_bytes(data)
        found = contents.of(tmp_path / "file")
        assert found is not None
        shard, hashes = hash_shard(data)
        assert (found.ref.id, found.ref.nbytes, found.hashes) == (shard, nbytes, hashes)
        assert contents.find(shard) == found
        assert b"".join(found.chunk(index) or b"?" for index in range(len(hashes))) == data


def test_what_is_no_file_is_none(tmp_path: Path) -> None:
    """A spec may name anything; a pipe would never end."""
    os.mkfifo(tmp_path / "pipe")
    contents = Contents()
    for name in ("none", "", "pipe", "a\0b"):
        assert contents.of(tmp_path / name) is None


def test_a_file_that_changed_since_it_was_read_gives_no_chunk(tmp_path: Path) -> None:
    """Its peer would take this host for one that lies."""
    file = tmp_path / "file"
    file.write_bytes(b"before")
    contents = Contents()
    found = contents.of(file)
    assert found is not None
    file.write_bytes(b"afterwards")
    assert found.chunk(0) is None
    again = contents.of(file)
    assert again is not None
    assert again.ref != found.ref
    file.unlink()
    assert again.chunk(0) is None


def test_what_moved_away_is_found_where_it_lies_as_well(tmp_path: Path) -> None:
    """The run's own file is edited, and the copy in the cache is as good as before."""
    own, blob = tmp_path / "own", tmp_path / "blob"
    contents = Contents()
    for file in (own, blob):
        file.write_bytes(b"same")
    found = contents.of(blob)
    assert found is not None
    contents.of(own)
    own.write_bytes(b"edited")
    assert contents.find(found.ref.id) is None
    assert contents.of(blob) == found
    assert contents.find(found.ref.id) == found


def test_a_file_of_another_size_is_not_read(tmp_path: Path) -> None:
    """Clients choose names and sizes; some of the kernel's files say that they are empty and never end."""
    (tmp_path / "file").write_bytes(b"12345")
    contents = Contents()
    assert contents.of(tmp_path / "file", 4) is None
    assert contents.of(tmp_path / "file", 5) is not None
    endless = contents.of(Path("/proc/self/pagemap"), 0)
    assert endless is None or endless.ref.nbytes == 0
