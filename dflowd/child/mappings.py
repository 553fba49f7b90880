"""Files of the daemon's as memory, kept mapped from one call to the next.

To map a GiB costs 0.3 to 0.5 s of page faults, as much as an optimizer computes on it; and the daemon uses the same
segments again and again. What it has closed is let go of within a beat, so that it counts as free on both sides.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections import OrderedDict

KEPT = 128  # mappings; two versions of a model in ten shards each, written and read
WORTH_BYTES = 1 << 20  # below, a mapping costs less than to remember it

_Key = tuple[int, int, int]  # device and number of the file, protection


class Mappings:
    """Of one process. Safe for threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[_Key, tuple[str, mmap.mmap]] = OrderedDict()  # used last, last; with a path to it
        self._lock = threading.Lock()

    def map(self, path: str, nbytes: int, protection: int) -> memoryview:
        """The first `nbytes` of a file, shared with whoever else maps it, while a view of them is used. `protection`:
        mmap.PROT_*. Raises OSError if it cannot be opened, or is shorter."""
        if not nbytes:
            return memoryview(b"" if protection == mmap.PROT_READ else bytearray())
        handle = os.open(path, os.O_RDWR if protection & mmap.PROT_WRITE else os.O_RDONLY)
        try:
            found = os.fstat(handle)
            if found.st_size < nbytes:
                raise OSError(f"{path} is shorter than {nbytes} bytes")
            key = (found.st_dev, found.st_ino, protection)
            with self._lock:
                memory = self._kept[key][1] if key in self._kept else None
            if memory is None or len(memory) != found.st_size:
                memory = mmap.mmap(handle, found.st_size, mmap.MAP_SHARED, protection)
        finally:
            os.close(handle)
        if nbytes >= WORTH_BYTES:
            self._keep(key, path, memory)
        return memoryview(memory)[:nbytes]

    def sweep(self) -> None:
        """Let go of the files that no longer lie where they were opened."""
        with self._lock:
            gone = [key for key, (path, _) in self._kept.items() if not _is_at(path, key)]
            for key in gone:
                del self._kept[key]  # unmapped when the last view of it goes

    def _keep(self, key: _Key, path: str, memory: mmap.mmap) -> None:
        with self._lock:
            self._kept[key] = (path, memory)
            self._kept.move_to_end(key)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)


def _is_at(path: str, key: _Key) -> bool:
    try:
        found = os.stat(path)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == key[:2]
