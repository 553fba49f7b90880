"""Several files as one run of memory."""

from __future__ import annotations

import gc
import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from dflowd.child.joined import map_joined

PAGE = mmap.PAGESIZE


def files(folder: Path, *sizes: int) -> list[tuple[str, int]]:
    made = []
    for index, size in enumerate(sizes):
        path = folder / str(index)
        path.write_bytes(bytes([index + 1]) * (size + 100))  # a segment may be longer than its shard
        made.append((str(path), size))
    return made


def test_files_lie_one_behind_the_other_and_share_their_bytes(tmp_path: Path) -> None:
    """What is written through the joined view is in the files: shards are hashed and sealed one by one."""
    found = files(tmp_path, 2 * PAGE, PAGE, 10)
    view = map_joined(found, mmap.PROT_READ | mmap.PROT_WRITE)
    assert bytes(view) == b"\1" * 2 * PAGE + b"\2" * PAGE + b"\3" * 10
    np.frombuffer(view, np.uint8)[2 * PAGE - 1 : 3 * PAGE + 1] = 9
    assert Path(found[0][0]).read_bytes()[2 * PAGE - 2 : 2 * PAGE] == b"\1\t"
    assert set(Path(found[1][0]).read_bytes()[:PAGE]) == {9}
    assert Path(found[2][0]).read_bytes()[:2] == b"\t\3"


def test_a_mapping_lasts_as_long_as_a_view_of_it_and_no_longer(tmp_path: Path) -> None:
    """The daemon uses a shard's memory again once no engine maps it."""

    def is_mapped() -> bool:
        return str(tmp_path) in Path("/proc/self/maps").read_text()

    vector = np.frombuffer(map_joined(files(tmp_path, PAGE, PAGE), mmap.PROT_READ).toreadonly(), np.uint8)
    tail = vector[PAGE:]
    del vector
    gc.collect()
    assert is_mapped()
    assert tail[-1] == 2
    del tail
    gc.collect()
    assert not is_mapped()


def test_what_cannot_be_joined_is_refused(tmp_path: Path) -> None:
    """A border within a page, and a file that is shorter than was said: a fault by signal would end the engine."""
    found = files(tmp_path, PAGE, PAGE)
    with pytest.raises(ValueError, match="page"):
        map_joined([(found[0][0], 10), found[1]], mmap.PROT_READ)
    os.truncate(found[1][0], PAGE - 1)
    with pytest.raises(OSError, match="shorter"):
        map_joined(found, mmap.PROT_READ)
