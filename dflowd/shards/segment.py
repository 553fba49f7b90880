"""Shared memory in segments: anonymous files that engines open through /proc, bounded and recycled.

Owns bytes and their budget; knows nothing of shards. A segment dies with the last process that has it open, so a
daemon that is killed leaves nothing behind. Not safe for threads by itself: the store holds its lock around it.

A fresh 7 MiB segment costs about 6 ms of page faults and zeroing, so freed ones are kept by size and used again.
"""

from __future__ import annotations

import mmap
import os
from collections import OrderedDict
from dataclasses import dataclass, field

from dflow_protocols.names import CHUNK_BYTES

SMALLEST_BYTES = 4096  # a page
FREE_SHARE = 4  # recycled segments may take one part in this many of the limit
FREE_SEGMENTS = 512  # each is an open file


class Full(Exception):
    """There is no room, in bytes: `wanted` more, beside `used` (in use, without what could be recycled), of `limit`."""

    def __init__(self, wanted: int, used: int, limit: int, why: str = "") -> None:
        super().__init__(why or f"{wanted} bytes wanted, {used} of {limit} in use")
        self.wanted, self.used, self.limit = wanted, used, limit


@dataclass(slots=True, eq=False)
class Segment:
    """One shared file. `nbytes`: what was asked for; the file is at least that long."""

    number: int
    fd: int
    nbytes: int
    capacity: int
    resident: int = 0  # bitmap of the chunks that have memory behind them
    _map: mmap.mmap | None = field(default=None, repr=False)

    @property
    def path(self) -> str:
        """Where other processes of this user open it."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    @property
    def resident_bytes(self) -> int:
        return self.resident.bit_count() * min(self.capacity, CHUNK_BYTES)

    def view(self) -> memoryview:
        """All `nbytes`, writable. Mapped on first use, and kept mapped while the segment lives."""
        if self._map is None:
            self._map = mmap.mmap(self.fd, self.capacity)
        return memoryview(self._map)[: self.nbytes]

    def close(self) -> None:
        self._map = None  # unmapped when the last view of it goes
        os.close(self.fd)


def capacity_for(nbytes: int) -> int:
    """Length of the file for so many bytes: few sizes, so that segments fit again. Powers of two, then whole chunks."""
    if nbytes <= CHUNK_BYTES:
        return max(SMALLEST_BYTES, 1 << max(0, nbytes - 1).bit_length())
    return -(-nbytes // CHUNK_BYTES) * CHUNK_BYTES


def chunk_mask(first: int, end: int) -> int:
    """Bitmap with chunks [first, end) set."""
    return ((1 << (end - first)) - 1) << first


class SegmentPool:
    """Makes, recycles and counts segments under one limit."""

    def __init__(self, limit_bytes: int, label: str) -> None:
        """`label` shows in the name of every segment, `dflowd-LABEL-N`, and so in /proc/PID/maps."""
        self.limit_bytes, self._label = limit_bytes, label
        self.taken_bytes = 0  # memory behind segments in use
        self.free_bytes = 0  # memory behind recycled ones
        self._free: OrderedDict[int, Segment] = OrderedDict()  # by number, longest free first
        self._made = 0

    def take(self, nbytes: int, first: int, end: int) -> Segment:
        """A segment for `nbytes` with memory behind chunks [first, end). Its content is arbitrary. Raises Full."""
        capacity = capacity_for(nbytes)
        wanted = chunk_mask(first, end) if capacity >= CHUNK_BYTES else 1
        segment = self._recycled(capacity, wanted)
        if segment is None:
            segment = self._make(nbytes, capacity)
        segment.nbytes = nbytes
        self.taken_bytes += segment.resident_bytes
        try:
            self._back(segment, wanted)
        except Full:
            self.give(segment)
            raise
        return segment

    def extend(self, segment: Segment, chunks: int) -> None:
        """Put memory behind these chunks (a bitmap) too. Raises Full, and then changes nothing."""
        self._back(segment, chunks)

    def give(self, segment: Segment) -> None:
        """Take a segment back that nobody uses any more."""
        self.taken_bytes -= segment.resident_bytes
        if not segment.resident:
            segment.close()
            return
        self._free[segment.number] = segment
        self.free_bytes += segment.resident_bytes
        while self.free_bytes > self.limit_bytes // FREE_SHARE or len(self._free) > FREE_SEGMENTS:
            self._close_oldest()

    def close(self) -> None:
        while self._free:
            self._close_oldest()

    def _make(self, nbytes: int, capacity: int) -> Segment:
        self._made += 1
        try:
            fd = os.memfd_create(f"dflowd-{self._label}-{self._made}", os.MFD_CLOEXEC)
        except OSError as error:  # no file descriptor left
            raise Full(nbytes, self.taken_bytes, self.limit_bytes, f"no segment: {error.strerror}") from None
        os.ftruncate(fd, capacity)
        return Segment(self._made, fd, nbytes, capacity)

    def _recycled(self, capacity: int, wanted: int) -> Segment | None:
        """Of the free ones of this size, that with most of what is wanted, then with least beside it."""
        fitting = [segment for segment in self._free.values() if segment.capacity == capacity]
        if not fitting:
            return None
        best = max(fitting, key=lambda it: ((it.resident & wanted).bit_count(), -it.resident.bit_count()))
        del self._free[best.number]
        self.free_bytes -= best.resident_bytes
        return best

    def _back(self, segment: Segment, wanted: int) -> None:
        missing = wanted & ~segment.resident
        if not missing:
            return
        unit = min(segment.capacity, CHUNK_BYTES)
        cost = missing.bit_count() * unit
        while self._free and self.taken_bytes + self.free_bytes + cost > self.limit_bytes:
            self._close_oldest()
        if self.taken_bytes + cost > self.limit_bytes:
            raise Full(cost, self.taken_bytes, self.limit_bytes)
        try:
            for first, end in runs_of(missing):
                os.posix_fallocate(segment.fd, first * unit, (end - first) * unit)
        except OSError as error:
            raise Full(cost, self.taken_bytes, self.limit_bytes, f"no memory: {error.strerror}") from None
        segment.resident |= missing
        self.taken_bytes += cost

    def _close_oldest(self) -> None:
        _, segment = self._free.popitem(last=False)
        self.free_bytes -= segment.resident_bytes
        segment.close()


def runs_of(bitmap: int) -> list[tuple[int, int]]:
    """The runs [first, end) of set bits, in order."""
    runs, at = [], 0
    while bitmap:
        zeros = (bitmap & -bitmap).bit_length() - 1
        bitmap >>= zeros
        ones = (~bitmap & (bitmap + 1)).bit_length() - 1
        bitmap >>= ones
        runs.append((at + zeros, at + zeros + ones))
        at += zeros + ones
    return runs
