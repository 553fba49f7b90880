"""Files of this host by what they hold: read once, and again when they changed."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from dflow_protocols.names import CHUNK_BYTES, ShardId, ShardRef, chunk_hash, shard_id

KEPT = 8_192  # files whose contents are remembered


@dataclass(frozen=True, slots=True)
class Content:
    """What a file held when it was read: as a shard, with the hashes of its chunks."""

    path: Path
    ref: ShardRef
    hashes: tuple[bytes, ...]

    def chunk(self, index: int) -> bytes | None:
        """One chunk's bytes, read now; None where they are not what they were, or cannot be read."""
        try:
            with self.path.open("rb") as file:
                data = os.pread(file.fileno(), CHUNK_BYTES, index * CHUNK_BYTES)
        except OSError:
            return None
        return data if chunk_hash(data) == self.hashes[index] else None


_Key = tuple[str, int, int, int]
"""A file as it stands: its path, inode, bytes, and when it was written."""


def _key(path: Path, facts: os.stat_result) -> _Key:
    return str(path), facts.st_ino, facts.st_size, facts.st_mtime_ns


class Contents:
    """Safe for threads: looks are taken in one, and peers served in another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[_Key, Content] = OrderedDict()
        self._places: dict[ShardId, tuple[_Key, Content]] = {}

    def of(self, path: Path, nbytes: int | None = None) -> Content | None:
        """What the file holds; None where there is none that can be read, or only one that is not of `nbytes`: that is
        not read. May take long, but reads no more than the file says that it holds: some of the kernel's never end."""
        try:
            facts = path.stat()
            if not stat.S_ISREG(facts.st_mode) or nbytes not in (None, facts.st_size):
                return None
            key = _key(path, facts)
            with self._lock:
                known = self._known.get(key)
            return self._note(key, known or _read(path, facts.st_size))
        except (OSError, ValueError):  # a name may hold what no path does
            return None

    def find(self, shard: ShardId) -> Content | None:
        """A file that held this when it was last read, and has not changed since."""
        with self._lock:
            place = self._places.get(shard)
        if place is None:
            return None
        key, content = place
        with contextlib.suppress(OSError):
            if _key(content.path, content.path.stat()) == key:
                return content
        with self._lock:
            if self._places.get(shard) is place:
                del self._places[shard]  # whoever looks again may find the same elsewhere
        return None

    def moved(self, content: Content, path: Path) -> Content:
        """The same file lies elsewhere now. Raises OSError."""
        return self._note(_key(path, path.stat()), Content(path, content.ref, content.hashes))

    def forget(self, shard: ShardId) -> None:
        """A file with these bytes was removed."""
        with self._lock:
            self._places.pop(shard, None)

    def _note(self, key: _Key, content: Content) -> Content:
        with self._lock:
            self._known[key] = content
            self._places[content.ref.id] = key, content
            self._known.move_to_end(key)
            if len(self._known) > KEPT:
                gone, oldest = self._known.popitem(last=False)
                if self._places.get(oldest.ref.id) == (gone, oldest):
                    del self._places[oldest.ref.id]
        return content


def _read(path: Path, most: int) -> Content:
    hashes, nbytes = [], 0
    with path.open("rb") as file:
        while nbytes < most and (data := file.read(min(CHUNK_BYTES, most - nbytes))):
            hashes.append(chunk_hash(data))
            nbytes += len(data)
    return Content(path, ShardRef(shard_id(nbytes, hashes), nbytes), tuple(hashes))
