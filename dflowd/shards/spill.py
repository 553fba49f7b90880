"""Disk behind shared memory: files that shards lie in when memory is full.

Owns how much disk that may be and what happens when there is none. A file has no name: like a memory segment it is
opened by engines through /proc and ends with the last process that has it open, so a daemon that is killed leaves
nothing behind. What lies in one is read through the kernel's cache, which keeps what is used in memory as long as
there is some. Not safe for threads by itself: the store holds its lock around all but `back`.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

SPARE_BYTES = 256 << 20  # of the disk that shards leave free: records, checkpoints and logs come first


def size_text(nbytes: int) -> str:
    """A size for people, such as `1.5 GiB`."""
    size, units = float(nbytes), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.4g} {units[0]}"


class NoDisk(Exception):
    """The disk takes no more: `why`, for people."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class SpillFolder:
    """Files of one daemon. `limit_bytes`: most that they may take together; 0: none."""

    def __init__(self, folder: Path, limit_bytes: int | None, spare_bytes: int = SPARE_BYTES) -> None:
        """`limit_bytes` None: as much as leaves `spare_bytes` free. Files of a daemon that was killed are removed."""
        self._folder, self._limit_bytes, self._spare_bytes = folder, limit_bytes, spare_bytes
        self.used_bytes = 0
        self.trouble = ""  # why the last request was refused by the disk, not by the limit; empty when it was not
        for leftover in folder.glob("shard-*"):
            leftover.unlink(missing_ok=True)

    @property
    def room_bytes(self) -> int:
        """How much more may be written at this moment; 0 where that cannot be found out."""
        try:
            place = os.statvfs(self._folder if self._folder.exists() else self._folder.parent)
        except OSError:
            return 0
        free = place.f_bavail * place.f_frsize - self._spare_bytes
        most = free if self._limit_bytes is None else min(free, self._limit_bytes - self.used_bytes)
        return max(0, most)

    @property
    def capacity_bytes(self) -> int:
        """How much shards could take if none did now."""
        return self.used_bytes + self.room_bytes

    def reserve(self, nbytes: int) -> None:
        """Count so many bytes as used. Raises NoDisk."""
        if self._limit_bytes is not None and self.used_bytes + nbytes > self._limit_bytes:
            raise NoDisk(f"shards.disk_limit of {size_text(self._limit_bytes)} is reached")
        if self.room_bytes < nbytes:
            spare = size_text(self._spare_bytes)
            self.trouble = f"{size_text(nbytes)} would leave less than {spare} free in {self._folder}"
            raise NoDisk(self.trouble)
        self.used_bytes += nbytes

    def release(self, nbytes: int) -> None:
        self.used_bytes -= nbytes

    def make(self, capacity: int) -> int:
        """A new file of that length without a byte behind it, as a descriptor. Raises NoDisk."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix="shard-", dir=self._folder)
            os.unlink(name)
        except OSError as error:
            raise self._refused(error) from None
        try:
            os.ftruncate(handle, capacity)
        except OSError as error:
            os.close(handle)
            raise self._refused(error) from None
        return handle

    def back(self, handle: int, offset: int, nbytes: int) -> None:
        """Put disk behind a part of a file, so that writing there cannot fail for want of it. Raises NoDisk."""
        try:
            os.posix_fallocate(handle, offset, nbytes)
        except OSError as error:
            raise self._refused(error) from None
        self.trouble = ""

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _refused(self, error: OSError) -> NoDisk:
        self.trouble = f"{self._folder}: {error.strerror}"
        return NoDisk(self.trouble)
