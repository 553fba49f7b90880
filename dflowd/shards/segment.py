"""Room for shards in segments: anonymous files in memory, and on disk where memory is full.

Owns bytes and their budget; knows nothing of shards. Engines open a segment through /proc, and it ends with the last
process that has it open, so a daemon that is killed leaves nothing behind. Not safe for threads by itself: the store
holds its lock around all but `back`, which may take long.

A fresh 7 MiB segment of memory costs about 6 ms of page faults and zeroing, so freed ones are kept by size and used
again: a share of the limit, and whatever the next version of the states that lie here will need. To give memory back
takes a quarter of a millisecond a MiB, and a disk's file longer: what is surplus is handed out to be closed by whoever
can wait, outside of the lock.
"""

from __future__ import annotations

import mmap
import os
from collections import OrderedDict
from dataclasses import dataclass, field

from dflow_protocols.names import CHUNK_BYTES

from .spill import NoDisk, SpillFolder, size_text

SMALLEST_BYTES = 4096  # a page
FREE_SHARE = 4  # recycled segments may take one part in this many of the limit
FREE_SEGMENTS = 512  # each is an open file


class Full(Exception):
    """There is no room, in bytes: `wanted` more, beside `used` (in use, without what could be recycled), of `limit`
    in memory, and none on disk."""

    def __init__(self, wanted: int, used: int, limit: int, why: str = "") -> None:
        super().__init__(why or f"{size_text(wanted)} wanted, {size_text(used)} of {size_text(limit)} in use")
        self.wanted, self.used, self.limit = wanted, used, limit


@dataclass(slots=True, eq=False)
class Segment:
    """One file. `nbytes`: what was asked for; the file is at least that long."""

    number: int
    fd: int
    nbytes: int
    capacity: int
    is_on_disk: bool = False
    is_engines: bool = False  # an engine writes it, not this process, or did last
    resident: int = 0  # bitmap of the chunks that have memory or disk behind them, or are about to
    pending: int = 0  # those that `back` has still to see to
    unit: int = field(init=False)  # bytes behind one bit of a bitmap
    _map: mmap.mmap | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.unit = min(self.capacity, CHUNK_BYTES)

    @property
    def path(self) -> str:
        """Where other processes of this user open it."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    @property
    def resident_bytes(self) -> int:
        return self.resident.bit_count() * self.unit

    def view(self) -> memoryview:
        """All `nbytes`, writable. Mapped on first use, and kept mapped while the segment lives. A disk's would make
        whoever touches it wait for the disk: use `read` and `write` there."""
        if self._map is None:
            self._map = mmap.mmap(self.fd, self.capacity)
        return memoryview(self._map)[: self.nbytes]

    def read(self, first: int, end: int) -> memoryview:
        """The bytes of chunks [first, end), read-only. Raises OSError if the disk fails."""
        begin, until = first * CHUNK_BYTES, min(end * CHUNK_BYTES, self.nbytes)
        if not self.is_on_disk:
            return self.view()[begin:until].toreadonly()
        data = os.pread(self.fd, until - begin, begin)
        if len(data) != until - begin:
            raise OSError(f"{len(data)} bytes instead of {until - begin}")
        return memoryview(data)

    def write(self, first: int, data: memoryview) -> None:
        """Put bytes where chunk `first` begins. Raises OSError if the disk fails."""
        at = first * CHUNK_BYTES
        while data:
            written = os.pwrite(self.fd, data, at)
            at, data = at + written, data[written:]

    def resize(self, nbytes: int) -> None:
        """It is asked for, or filled, to so many bytes."""
        self.nbytes = nbytes

    def hand_out(self, nbytes: int, to_engine: bool) -> None:
        """It is asked for anew."""
        self.nbytes, self.is_engines = nbytes, to_engine

    def count(self, chunks: int) -> None:
        """These get memory or disk behind them."""
        self.resident |= chunks
        self.pending |= chunks

    def uncount(self) -> None:
        """Those that still wait for it get none."""
        self.resident &= ~self.pending
        self.pending = 0

    def settle(self) -> None:
        """None waits for it any more."""
        self.pending = 0

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
    """Makes, recycles and counts segments under one limit, with a disk behind it."""

    def __init__(self, limit_bytes: int, label: str, spill: SpillFolder | None = None) -> None:
        """`label` shows in the name of every segment of memory, `dflowd-LABEL-N`, and so in /proc/PID/maps."""
        self.limit_bytes, self._label, self.spill = limit_bytes, label, spill
        self.taken_bytes = 0  # memory behind segments in use
        self.free_bytes = 0  # memory behind recycled ones
        self.surplus_bytes = 0  # memory behind those that are to be closed
        self._surplus: list[Segment] = []
        self._needed_soon = 0  # bytes
        self._free: OrderedDict[int, Segment] = OrderedDict()  # by number, longest free first
        self._made = 0

    def cost(self, nbytes: int, first: int, end: int) -> int:
        """How many bytes `back` would have to see to after `take` of the same."""
        capacity = capacity_for(nbytes)
        wanted = chunk_mask(first, end) if capacity >= CHUNK_BYTES else 1
        best = self._best(capacity, wanted, to_engine=False)
        there = best.resident if best is not None else 0
        return (wanted & ~there).bit_count() * min(capacity, CHUNK_BYTES)

    def take(self, nbytes: int, first: int, end: int, to_engine: bool = False) -> Segment:
        """A segment for `nbytes`, of which chunks [first, end) are counted as in use: after `back` they may be
        written to, by this process or by an engine. Their content is arbitrary. Memory first, then disk. Raises
        Full."""
        capacity = capacity_for(nbytes)
        wanted = chunk_mask(first, end) if capacity >= CHUNK_BYTES else 1
        segment = self._recycled(capacity, wanted, to_engine) or self._make(capacity)
        segment.hand_out(nbytes, to_engine)
        self.taken_bytes += segment.resident_bytes
        try:
            self.extend(segment, wanted)
        except Full:
            self.give(segment)
            return self.take_on_disk(nbytes, wanted)
        return segment

    def take_on_disk(self, nbytes: int, chunks: int) -> Segment:
        """The same on disk, of a bitmap of chunks. Raises Full."""
        capacity = capacity_for(nbytes)
        if self.spill is None:
            raise self._full(chunks.bit_count() * min(capacity, CHUNK_BYTES), "")
        try:
            fd = self.spill.make(capacity)
        except NoDisk as error:
            raise self._full(chunks.bit_count() * min(capacity, CHUNK_BYTES), error.why) from None
        self._made += 1
        segment = Segment(self._made, fd, nbytes, capacity, is_on_disk=True)
        try:
            self.extend(segment, chunks)
        except Full:
            segment.close()  # empty
            raise
        return segment

    def extend(self, segment: Segment, chunks: int) -> None:
        """Count these chunks (a bitmap) too. Raises Full, and then changes nothing."""
        missing = chunks & ~segment.resident
        cost = missing.bit_count() * segment.unit
        if segment.is_on_disk:
            assert self.spill is not None
            try:
                self.spill.reserve(cost)
            except NoDisk as error:
                raise self._full(cost, error.why) from None
        else:
            if self.taken_bytes + cost > self.limit_bytes:
                raise self._full(cost, "")
            while self.taken_bytes + self.free_bytes + cost > self.limit_bytes:
                self._discard_oldest()
            self.taken_bytes += cost
        segment.count(missing)

    def back(self, segment: Segment) -> None:
        """Put memory or disk behind what was counted. May take long, so the store's lock is not held. Raises Full:
        then `uncount` is due."""
        for first, end in runs_of(segment.pending):
            offset, nbytes = first * segment.unit, (end - first) * segment.unit
            try:
                if segment.is_on_disk and self.spill is not None:
                    self.spill.back(segment.fd, offset, nbytes)
                else:
                    os.posix_fallocate(segment.fd, offset, nbytes)
            except NoDisk as error:
                raise self._full(nbytes, error.why) from None
            except OSError as error:
                raise self._full(nbytes, f"no memory: {error.strerror}") from None
        segment.settle()

    def uncount(self, segment: Segment) -> None:
        """Take back what was counted and never backed."""
        nbytes = segment.pending.bit_count() * segment.unit
        if segment.is_on_disk and self.spill is not None:
            self.spill.release(nbytes)
        else:
            self.taken_bytes -= nbytes
        segment.uncount()

    def give(self, segment: Segment) -> None:
        """Take a segment back that nobody uses any more."""
        if segment.is_on_disk and self.spill is not None:
            self.spill.release(segment.resident_bytes)
            self._surplus.append(segment)
            return
        self.taken_bytes -= segment.resident_bytes
        if not segment.resident:
            segment.close()  # nothing is behind it
            return
        self._free[segment.number] = segment
        self.free_bytes += segment.resident_bytes
        self._trim()

    def expect(self, nbytes: int) -> None:
        """So many bytes will be wanted soon, in sizes that were there before: to be kept when they are given back."""
        self._needed_soon = nbytes
        self._trim()

    def _trim(self) -> None:
        most = max(self.limit_bytes // FREE_SHARE, self._needed_soon)
        while self.free_bytes > most or len(self._free) > FREE_SEGMENTS:
            self._discard_oldest()

    @property
    def has_surplus(self) -> bool:
        return bool(self._surplus)

    @property
    def is_over(self) -> bool:
        """Whether what is counted lies within the limit only once the surplus is closed."""
        return self.taken_bytes + self.free_bytes + self.surplus_bytes > self.limit_bytes

    def take_surplus(self) -> list[Segment]:
        """What the caller is to close; it counts no more."""
        surplus, self._surplus, self.surplus_bytes = self._surplus, [], 0
        return surplus

    def close(self) -> None:
        while self._free:
            self._discard_oldest()
        for segment in self.take_surplus():
            segment.close()
        if self.spill is not None:
            self.spill.close()

    def _make(self, capacity: int) -> Segment:
        self._made += 1
        try:
            fd = os.memfd_create(f"dflowd-{self._label}-{self._made}", os.MFD_CLOEXEC)
        except OSError as error:  # no file descriptor left
            raise self._full(capacity, f"no segment: {error.strerror}") from None
        try:
            os.ftruncate(fd, capacity)
        except OSError as error:  # longer than a file of this process may be
            os.close(fd)
            raise self._full(capacity, f"no segment of {size_text(capacity)}: {error.strerror}") from None
        return Segment(self._made, fd, 0, capacity)

    def _recycled(self, capacity: int, wanted: int, to_engine: bool) -> Segment | None:
        best = self._best(capacity, wanted, to_engine)
        if best is not None:
            del self._free[best.number]
            self.free_bytes -= best.resident_bytes
        return best

    def _best(self, capacity: int, wanted: int, to_engine: bool) -> Segment | None:
        """Of the free ones of this size, that with most of what is wanted, then with least beside it; where mappings
        are kept, then one that the same process wrote: each page that a process writes for the first time costs it a
        fault. Often the first has just that, as all small ones do: there may be hundreds, and each shard asks."""
        best: Segment | None = None
        most = (-1, 0, False)
        for segment in self._free.values():
            if segment.capacity == capacity:
                is_mapped = segment.is_engines == to_engine or capacity < CHUNK_BYTES
                if segment.resident == wanted and is_mapped:
                    return segment
                fits = (segment.resident & wanted).bit_count(), -segment.resident.bit_count(), is_mapped
                if fits > most:
                    best, most = segment, fits
        return best

    def _full(self, wanted: int, why: str) -> Full:
        return Full(wanted, self.taken_bytes, self.limit_bytes, why)

    def _discard_oldest(self) -> None:
        _, segment = self._free.popitem(last=False)
        self.free_bytes -= segment.resident_bytes
        self.surplus_bytes += segment.resident_bytes
        self._surplus.append(segment)


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
