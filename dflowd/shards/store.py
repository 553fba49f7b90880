"""The shards of this node, whole or in part, in shared memory (or on disk, past its limit) that engines map without
a copy.

Owns which shard lies where, for which runs, who is using it, and which gives way. Knows nothing of peers: exchange.py
brings shards in and hands them out. Safe for threads: the loop, the bulk lane and room.py's worker all work on it, and
every method but `grant`, `partial`, `landed` and `let_go` is short.

A shard's memory is free again once no run refers to it and nothing has it pinned. When there is neither memory nor
disk left, what can be made again is shed for what an earlier step needs, the newest first.
"""

from __future__ import annotations

import resource
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from dflow_protocols.names import CHUNK_BYTES, RunId, ShardId, ShardRef, chunk_count, shard_id
from dflow_protocols.shards.space import AdmissionQueue, Priority, latest_after

from .segment import Full, Segment, SegmentPool, chunk_mask, runs_of
from .spill import SpillFolder, size_text
from .usage import Usage

T = TypeVar("T")

STATE_FOLLOWS = 2  # sizes of a state that are wanted soon where one lies: its next version, and gradients on the way


@dataclass(slots=True)
class _Shard:
    ref: ShardRef
    segment: Segment
    hashes: tuple[bytes, ...] | None  # of all chunks; none until the first holder told them
    present: int  # bitmap of the chunks that were verified
    runs: dict[RunId, Priority]  # who refers to it, and what first for
    untold: Counter[RunId] = field(default_factory=Counter)  # works of a run that made it, of which it has yet to hear
    is_state: bool = False  # of a version: nobody might be able to make it again
    pins: int = 0
    outdated: tuple[Segment, ...] = ()  # replaced while pinned
    landing: dict[int, bytearray] = field(default_factory=dict)  # chunks on their way to disk

    @property
    def is_whole(self) -> bool:
        return self.present == chunk_mask(0, chunk_count(self.ref.nbytes))

    @property
    def priority(self) -> Priority:
        """The first of those that it is for."""
        return min(self.runs.values())

    def become(self, segment: Segment, hashes: tuple[bytes, ...], present: int) -> None:
        """It lies in another segment from now on; who uses the one before may finish there."""
        self.outdated += (self.segment,)
        self.segment, self.hashes, self.present = segment, hashes, present

    def move(self, segment: Segment) -> Segment:
        """The same bytes lie in another segment now; returns the one before."""
        before, self.segment = self.segment, segment
        return before

    def take_outdated(self) -> tuple[Segment, ...]:
        outdated, self.outdated = self.outdated, ()
        return outdated

    def refer(self, priority: Priority) -> None:
        self.runs[priority.run] = min(priority, self.runs.get(priority.run, priority))
        self.is_state |= priority.is_state


class Store:
    """Shards by id. Where a method takes an id that is not here it raises KeyError, unless it says otherwise."""

    def __init__(self, memory_limit_bytes: int, label: str, spill: SpillFolder | None = None) -> None:
        """`label`, such as the node's name, shows in /proc/PID/maps of who maps a shard. Each segment is an open file,
        so this raises the process's soft limit of open files to the hard one."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._lock = threading.RLock()
        self._pool = SegmentPool(memory_limit_bytes, label, spill)
        self._shards: dict[ShardId, _Shard] = {}
        self._grants: dict[int, tuple[Priority, Segment]] = {}
        self._state_bytes = 0
        self._is_surplus_told = False
        self._admission = AdmissionQueue()
        self._on_room: Callable[[], None] = lambda: None
        self._on_shed: Callable[[RunId, ShardId], None] = lambda run, shard: None
        self._on_surplus: Callable[[], None] = lambda: None

    def watch(
        self,
        on_room: Callable[[], None],
        on_shed: Callable[[RunId, ShardId], None],
        on_surplus: Callable[[], None] = lambda: None,
    ) -> None:
        """Be told, in any thread, that space was freed after somebody found none, of what is gone though a run refers
        to it, and that `let_go` is due in a thread that can wait."""
        self._on_room, self._on_shed, self._on_surplus = on_room, on_shed, on_surplus

    # What engines make --------------------------------------------------------------------------------------------

    def grant(self, priority: Priority, nbytes: int) -> Segment:
        """Room for an output, to be sealed or released. May take long where memory is fresh. Raises Full."""
        with self._lock:
            segment = self._make_room(priority, lambda: self._pool.take(nbytes, 0, chunk_count(nbytes), to_engine=True))
            self._grants[segment.number] = (priority, segment)
        self._keep_limit()
        try:
            self._pool.back(segment)
        except Full:
            with self._lock:
                self._pool.uncount(segment)
                self.release(segment)
            raise
        return segment

    def is_quick(self, sizes: Iterable[tuple[int, int, int]], most_bytes: int) -> bool:
        """Whether segments of (nbytes, first chunk, end chunk) could be had at once: in memory, little of it fresh, and
        nothing to be closed for it."""
        with self._lock:
            cost, pool = sum(self._pool.cost(*size) for size in sizes), self._pool
            unused = pool.limit_bytes - pool.taken_bytes - pool.free_bytes - pool.surplus_bytes
            return not cost or cost <= min(most_bytes, unused)

    def can_hold(self, nbytes: int) -> bool:
        """Whether so many bytes would fit if nothing else were here."""
        return nbytes <= self._pool.limit_bytes or nbytes <= self._pool.limit_bytes + self.disk_limit_bytes

    @property
    def capacity(self) -> str:
        """What there is at most, and how to have more, for people."""
        memory = f"shards.memory_limit is {size_text(self._pool.limit_bytes)}"
        return f"{memory}, and the disk behind it has room for {size_text(self.disk_limit_bytes)}: raise either"

    @property
    def disk_limit_bytes(self) -> int:
        """The most that shards may take there, as far as the disk has room now."""
        return self._pool.spill.capacity_bytes if self._pool.spill is not None else 0

    def seal(self, segment: Segment, shard: ShardId, nbytes: int, chunk_hashes: Sequence[bytes]) -> ShardRef:
        """What was granted now holds this shard in its first `nbytes`, as its writer hashed it.

        The same content from elsewhere becomes one shard. Raises ValueError if the hashes are not of that id, or
        the shard is longer than its grant; the grant is then still to be released.
        """
        if len(chunk_hashes) != chunk_count(nbytes) or shard_id(nbytes, chunk_hashes) != shard:
            raise ValueError(f"the hashes are not those of shard {shard[:12]} of {nbytes} bytes")
        if nbytes > segment.nbytes:
            raise ValueError(f"a shard of {nbytes} bytes in a grant of {segment.nbytes}")
        with self._lock:
            priority, _ = self._grants.pop(segment.number)
            segment.resize(nbytes)
            whole = chunk_mask(0, chunk_count(nbytes))
            known = self._shards.get(shard)
            if known is None:
                known = _Shard(ShardRef(shard, nbytes), segment, tuple(chunk_hashes), whole, {})
                self._shards[shard] = known
            elif known.is_whole:
                self._give(segment)
            else:  # a fetch is under way; who reads or writes the part may finish there
                known.become(segment, tuple(chunk_hashes), whole)
                self._sweep(known)
            self._refer(known, priority)
            return known.ref

    def release(self, segment: Segment) -> None:
        """Give up a grant whose writer is gone. One that was sealed or released before: nothing happens."""
        with self._lock:
            if self._grants.pop(segment.number, None) is not None:
                self._give(segment)

    # What is here -------------------------------------------------------------------------------------------------

    def has(self, shard: ShardId) -> bool:
        """Whether it lies here whole, for some run."""
        with self._lock:
            known = self._shards.get(shard)
            return known is not None and bool(known.runs) and known.is_whole

    def has_range(self, shard: ShardId, first: int, end: int) -> bool:
        """Whether its chunks [first, end) lie here verified, for some run."""
        with self._lock:
            known = self._shards.get(shard)
            mask = chunk_mask(first, end)
            return known is not None and bool(known.runs) and known.present & mask == mask

    def is_wanted(self, run: RunId, shard: ShardId) -> bool:
        """Whether the run refers to it, here or still to come."""
        with self._lock:
            known = self._shards.get(shard)
            return known is not None and run in known.runs

    def knows(self, shard: ShardId) -> bool:
        """Whether it, or a part of it, lies here or is to come, for some run."""
        with self._lock:
            known = self._shards.get(shard)
            return known is not None and bool(known.runs)

    def present(self, shard: ShardId) -> int:
        """Bitmap of the chunks that lie here verified, for some run."""
        with self._lock:
            known = self._shards.get(shard)
            return known.present if known is not None and known.runs else 0

    def path(self, shard: ShardId) -> str:
        """Where an engine of this user opens it. Pin it while the engine uses it."""
        with self._lock:
            return self._shards[shard].segment.path

    def view(self, shard: ShardId, first: int, end: int) -> memoryview:
        """The bytes of chunks [first, end), read-only. Pin the shard while the view is in use. Raises OSError too,
        if they are on a disk that fails."""
        with self._lock:
            known = self._shards[shard]
            mask = chunk_mask(first, end)
            if known.present & mask != mask:
                raise KeyError(shard)
            segment = known.segment
        return segment.read(first, end)

    def is_on_disk(self, shard: ShardId) -> bool:
        """Whether it lies on disk, so that who reads it should check it again."""
        with self._lock:
            known = self._shards.get(shard)
            return known is not None and known.segment.is_on_disk

    def spoil(self, shard: ShardId) -> None:
        """Its bytes are no longer what its id says: none of its chunks counts any more."""
        with self._lock:
            known = self._shards.get(shard)
            if known is not None:
                known.present = 0

    def hashes(self, shard: ShardId) -> tuple[bytes, ...] | None:
        """The hashes of all its chunks; None while they are not known, or the shard is not here."""
        with self._lock:
            known = self._shards.get(shard)
            return known.hashes if known else None

    def pin(self, shard: ShardId) -> None:
        """Keep its memory until as many `unpin`, whatever is dropped meanwhile."""
        with self._lock:
            known = self._shards[shard]
            known.pins += 1

    def unpin(self, shard: ShardId) -> None:
        with self._lock:
            known = self._shards[shard]
            assert known.pins > 0, "unpinned more often than pinned"
            known.pins -= 1
            self._sweep(known)

    def made(self, run: RunId, shards: Iterable[ShardId]) -> None:
        """A work of `run` made these, and it has yet to hear of it: until as many `told`, what it drops of them stays,
        since it means what it had of the same bytes for another end."""
        with self._lock:
            for shard in shards:
                self._shards[shard].untold[run] += 1

    def told(self, run: RunId, shards: Iterable[ShardId]) -> None:
        """`run` hears now that these were made. What is not here any more is passed over."""
        with self._lock:
            for shard in shards:
                known = self._shards.get(shard)
                if known is not None:
                    known.untold -= Counter([run])

    def drop(self, run: RunId, shards: Iterable[ShardId]) -> None:
        """`run` no longer refers to these. What is not here is passed over."""
        with self._lock:
            for shard in shards:
                known = self._shards.get(shard)
                if known is not None and not known.untold[run]:
                    known.runs.pop(run, None)
                    self._sweep(known)

    def usage(self) -> Usage:
        with self._lock:
            by_run: dict[RunId, int] = {}
            for known in self._shards.values():
                for run in sorted(known.runs):
                    by_run[run] = by_run.get(run, 0) + known.segment.resident_bytes
            for priority, segment in self._grants.values():
                by_run[priority.run] = by_run.get(priority.run, 0) + segment.resident_bytes
            return Usage(
                limit_bytes=self._pool.limit_bytes,
                used_bytes=self._pool.taken_bytes,
                disk_bytes=self._pool.spill.used_bytes if self._pool.spill is not None else 0,
                recycled_bytes=self._pool.free_bytes,
                shards_count=len(self._shards),
                pinned_count=sum(known.pins > 0 for known in self._shards.values()),
                grants_count=len(self._grants),
                by_run=by_run,
            )

    def listing(self) -> list[tuple[ShardId, int, list[RunId]]]:
        """Every shard here that a run refers to, whole or in part: its bytes, and the runs."""
        with self._lock:
            found = [(shard, known.segment.resident_bytes, sorted(known.runs)) for shard, known in self._shards.items()]
        return [entry for entry in found if entry[2]]

    def close(self) -> None:
        """Let go of everything at once; for the end of the process."""
        with self._lock:
            for known in self._shards.values():
                known.segment.close()
            for _, segment in self._grants.values():
                segment.close()
            self._shards.clear()
            self._grants.clear()
            self._pool.close()

    # What comes from peers ----------------------------------------------------------------------------------------

    def partial(self, priority: Priority, ref: ShardRef, first: int, end: int) -> int:
        """Make room for chunks [first, end) of a shard to be fetched. Returns the bitmap of those that are here.

        May take long where memory is fresh. Raises Full, and then nothing has changed.
        """
        with self._lock:
            known = self._shards.get(ref.id)
            if known is None:
                segment = self._make_room(priority, lambda: self._pool.take(ref.nbytes, first, end))
                known = _Shard(ref, segment, None, 0, {})
                self._shards[ref.id] = known
            else:
                self._make_room(priority, lambda: self._widen(known, chunk_mask(first, end)), known)
            was_referred = priority.run in known.runs
            self._refer(known, priority)
            known.pins += 1
            segment = known.segment
        self._keep_limit()
        try:
            self._pool.back(segment)
        except Full:
            with self._lock:
                self._pool.uncount(segment)
                known.present &= segment.resident
                if not was_referred:
                    known.runs.pop(priority.run, None)
            raise
        finally:
            self.unpin(ref.id)
        return known.present

    def set_hashes(self, shard: ShardId, chunk_hashes: Sequence[bytes]) -> None:
        """The hashes of all chunks, checked against the id by the caller. One that was dropped: nothing happens."""
        with self._lock:
            known = self._shards.get(shard)
            if known is not None:
                known.hashes = tuple(chunk_hashes)

    def fill(self, shard: ShardId, data: bytes, chunk_hashes: Sequence[bytes]) -> bool:
        """Put all bytes of a shard of one chunk in their place, checked against its id by the caller. False: nobody
        waits for it, it has another length, it lies on a disk, or who has it pinned may be writing there."""
        with self._lock:
            known = self._shards.get(shard)
            if known is None or known.pins or known.segment.is_on_disk or known.ref.nbytes != len(data):
                return False
            place = self.landing(shard, 0)
            if place is None:
                return False
            place[:] = data
            place.release()
            known.hashes = tuple(chunk_hashes)
            return self.landed(shard, 0, is_good=True)

    def landing(self, shard: ShardId, index: int) -> memoryview | None:
        """Pin the shard and give the place of chunk `index`, to be ended by `landed`. None if nobody waits for it."""
        with self._lock:
            known = self._shards.get(shard)
            bit = 1 << index
            if known is None or not known.runs or known.present & bit or not known.segment.resident & bit:
                return None
            begin, until = index * CHUNK_BYTES, min((index + 1) * CHUNK_BYTES, known.ref.nbytes)
            if known.segment.is_on_disk:
                place = memoryview(known.landing.setdefault(index, bytearray(until - begin)))
            else:
                place = known.segment.view()[begin:until]
            known.pins += 1
            return place

    def landed(self, shard: ShardId, index: int, is_good: bool) -> bool:
        """What was written to `landing` is the chunk, as its hash says, or is not. Whether it lies here now: a disk
        may fail. May wait for that disk."""
        known = self._shards[shard]  # pinned by `landing`, so it stays
        try:
            data = known.landing.pop(index, None)
            if is_good and data is not None:
                known.segment.write(index, memoryview(data))
        except OSError:
            is_good = False
        with self._lock:
            if is_good:
                known.present |= 1 << index
            self.unpin(shard)
        return is_good

    # What gives way -----------------------------------------------------------------------------------------------

    def _make_room(self, priority: Priority, take: Callable[[], T], spared: _Shard | None = None) -> T:
        """What `take` gives, after shedding for it if need be. Raises Full."""
        now = time.monotonic()
        if not self._admission.enter(now, priority):
            raise Full(0, self._pool.taken_bytes, self._pool.limit_bytes, "an older step waits for room")
        while True:
            try:
                taken = take()
                self._admission.took(priority)
                return taken
            except Full:
                if not self._shed(priority, spared):
                    granted = [other for other, _ in self._grants.values()]
                    held = [known.priority for known in self._shards.values() if known.runs]
                    self._admission.refuse(now, priority, granted + held)
                    raise
                self.let_go()  # a disk has room again only when the file is closed

    def _shed(self, priority: Priority, spared: _Shard | None) -> bool:
        """Give up what has to give way to this priority. False: there is nothing."""
        given = latest_after(
            priority,
            (
                (known.priority, known)
                for known in self._shards.values()
                if known.runs and not known.pins and not known.is_state and known is not spared
            ),
        )
        if given is None:
            return False
        for run in sorted(given.runs):
            self._on_shed(run, given.ref.id)
        given.runs.clear()
        self._sweep(given)
        return True

    def _widen(self, known: _Shard, chunks: int) -> None:
        """Room for more chunks of a shard; one that has no more in memory moves to disk. Raises Full."""
        try:
            self._pool.extend(known.segment, chunks)
        except Full:
            if known.pins or known.segment.is_on_disk:
                raise
            moved = self._pool.take_on_disk(known.ref.nbytes, known.segment.resident | chunks)
            for first, end in runs_of(known.present):
                try:
                    moved.write(first, known.segment.read(first, end))
                except OSError as error:
                    self._pool.give(moved)
                    raise Full(0, self._pool.taken_bytes, self._pool.limit_bytes, str(error)) from None
            self._pool.give(known.move(moved))

    def _sweep(self, known: _Shard) -> None:
        if known.pins:
            return
        for segment in known.take_outdated():
            self._give(segment)
        if not known.runs:
            del self._shards[known.ref.id]
            if known.is_state:
                self._count_state(-known.ref.nbytes)
            self._give(known.segment)

    def _refer(self, known: _Shard, priority: Priority) -> None:
        if priority.is_state and not known.is_state:
            self._count_state(known.ref.nbytes)
        known.refer(priority)

    def _count_state(self, nbytes: int) -> None:
        self._state_bytes += nbytes
        self._pool.expect(STATE_FOLLOWS * self._state_bytes)
        self._tell_surplus()

    def _give(self, segment: Segment) -> None:
        self._pool.give(segment)
        self._tell_surplus()
        if self._admission.freed():
            self._on_room()

    def let_go(self) -> None:
        """Give back to the machine what is kept no longer. May take long."""
        with self._lock:
            surplus, self._is_surplus_told = self._pool.take_surplus(), False
        for segment in surplus:
            segment.close()

    def _keep_limit(self) -> None:
        """Before memory is put behind what was counted: what it was taken from goes."""
        if self._pool.is_over:
            self.let_go()

    def _tell_surplus(self) -> None:
        if self._pool.has_surplus and not self._is_surplus_told:
            self._is_surplus_told = True
            self._on_surplus()
