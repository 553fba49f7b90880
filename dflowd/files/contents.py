"""Files of this host by what they hold: read once, and again when they changed."""

from __future__ import annotations

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


class Contents:
    """Safe for threads: looks are taken in one, and peers served in another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, int, int, int], Content] = OrderedDict()  # by path, inode, bytes, mtime
        self._places: dict[ShardId, Content] = {}

    def of(self, path: Path) -> Content | None:
        """What the file holds; None where there is none that can be read. May take long."""
        try:
            facts = path.stat()
            if not stat.S_ISREG(facts.st_mode):
                return None
            key = (str(path), facts.st_ino, facts.st_size, facts.st_mtime_ns)
            with self._lock:
                known = self._known.get(key)
            return self._note(key, known or _read(path))
        except (OSError, ValueError):  # a name may hold what no path does
            return None

    def find(self, shard: ShardId) -> Content | None:
        """A file that held this when it was last read."""
        with self._lock:
            return self._places.get(shard)

    def moved(self, content: Content, path: Path) -> Content:
        """The same file lies elsewhere now. Raises OSError."""
        facts = path.stat()
        key = (str(path), facts.st_ino, facts.st_size, facts.st_mtime_ns)
        return self._note(key, Content(path, content.ref, content.hashes))

    def forget(self, shard: ShardId) -> None:
        """A file with these bytes was removed."""
        with self._lock:
            self._places.pop(shard, None)

    def _note(self, key: tuple[str, int, int, int], content: Content) -> Content:
        with self._lock:
            self._known[key] = self._places[content.ref.id] = content
            self._known.move_to_end(key)
            if len(self._known) > KEPT:
                _, oldest = self._known.popitem(last=False)
                if self._places.get(oldest.ref.id) is oldest:
                    del self._places[oldest.ref.id]
        return content


def _read(path: Path) -> Content:
    hashes, nbytes = [], 0
    with path.open("rb") as file:
        while data := file.read(CHUNK_BYTES):
            hashes.append(chunk_hash(data))
            nbytes += len(data)
    return Content(path, ShardRef(shard_id(nbytes, hashes), nbytes), tuple(hashes))
