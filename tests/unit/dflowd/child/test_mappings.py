"""What is kept mapped: the daemon's files while it has them, and not one longer."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dflowd.child.mappings import KEPT, WORTH_BYTES, Mappings

WRITABLE = mmap.PROT_READ | mmap.PROT_WRITE
NAME = "dflowd-test-of-mappings"


def segment(name: str = NAME, nbytes: int = WORTH_BYTES) -> int:
    handle = os.memfd_create(name)
    os.ftruncate(handle, nbytes)
    return handle


def path_of(handle: int) -> str:
    return f"/proc/{os.getpid()}/fd/{handle}"


def is_mapped(name: str = NAME) -> bool:
    return name in Path("/proc/self/maps").read_text()


@pytest.fixture
def handle() -> Iterator[int]:
    made = segment()
    yield made
    os.close(made)


def test_a_file_is_mapped_once_for_all_calls(handle: int) -> None:
    """Page faults of a state cost as much as the optimizer that runs over it."""
    mappings = Mappings()
    first = mappings.map(path_of(handle), WORTH_BYTES, WRITABLE)
    first[:4] = b"read"
    assert mappings.map(path_of(handle), WORTH_BYTES, WRITABLE).obj is first.obj
    assert bytes(mappings.map(path_of(handle), 4, mmap.PROT_READ)) == b"read"


def test_what_is_read_cannot_be_written(handle: int) -> None:
    """An input stays what its id says, though another call wrote the same file."""
    mappings = Mappings()
    mappings.map(path_of(handle), WORTH_BYTES, WRITABLE)
    assert mappings.map(path_of(handle), WORTH_BYTES, mmap.PROT_READ).readonly


def test_memory_that_the_daemon_gave_up_is_let_go() -> None:
    """Else it would count as free there and be taken here; also where another file has its number by now."""
    mappings = Mappings()
    handle = segment()
    mappings.map(path_of(handle), WORTH_BYTES, WRITABLE)
    mappings.sweep()
    assert is_mapped()
    other = segment("another")
    os.dup2(other, handle)  # closes the file that was there
    mappings.sweep()
    assert not is_mapped()
    mappings.map(path_of(handle), WORTH_BYTES, WRITABLE)
    os.close(handle)
    os.close(other)
    mappings.sweep()
    assert not is_mapped("another")


def test_another_file_of_the_same_path_is_another_mapping(handle: int) -> None:
    """The daemon's descriptors are used again."""
    mappings = Mappings()
    mappings.map(path_of(handle), WORTH_BYTES, WRITABLE)[:3] = b"old"
    other = segment("another")
    os.dup2(other, handle)
    assert bytes(mappings.map(path_of(handle), 3, mmap.PROT_READ)) == b"\0\0\0"
    os.close(other)


def test_a_bounded_number_of_files_is_kept(handle: int) -> None:
    """A process may have some tens of thousands of mappings; each shard of a long run was one."""
    mappings = Mappings()
    mappings.map(path_of(handle), WORTH_BYTES, WRITABLE)
    for _ in range(KEPT):
        more = segment("another")
        mappings.map(path_of(more), WORTH_BYTES, WRITABLE)
        os.close(more)
    assert not is_mapped()


def test_a_file_that_is_too_short_is_told(handle: int) -> None:
    """To touch what is beyond its end would kill the engine by a signal."""
    with pytest.raises(OSError, match="is shorter than"):
        Mappings().map(path_of(handle), WORTH_BYTES + 1, WRITABLE)
