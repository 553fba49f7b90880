"""The shards of this node, whole or in part, in shared memory that engines map without a copy.

Owns which shard lies where, for which runs, and who is using it. Knows nothing of peers: exchange.py brings shards
in and hands them out. Safe for threads: the loop and the bulk lane both work on it, and every method is short.

A shard's memory is free again once no run refers to it and nothing has it pinned.
"""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dflow_protocols.names import CHUNK_BYTES, RunId, ShardId, ShardRef, chunk_count, shard_id

from .segment import Segment, SegmentPool, chunk_mask


@dataclass(slots=True)
class _Shard:
    ref: ShardRef
    segment: Segment
    hashes: tuple[bytes, ...] | None  # of all chunks; none until the first holder told them
    present: int  # bitmap of the chunks that were verified
    runs: set[RunId]
    pins: int = 0
    outdated: tuple[Segment, ...] = ()  # replaced while pinned

    @property
    def is_whole(self) -> bool:
        return self.present == chunk_mask(0, chunk_count(self.ref.nbytes))


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes of memory, and counts. `by_run` counts a shard of several runs for each of them."""

    limit_bytes: int
    used_bytes: int  # shards and grants
    recycled_bytes: int  # kept for reuse; given up before anything is refused
    shards_count: int
    pinned_count: int
    grants_count: int
    by_run: dict[RunId, int]


class Store:
    """Shards by id. Where a method takes an id that is not here it raises KeyError, unless it says otherwise."""

    def __init__(self, memory_limit_bytes: int, label: str) -> None:
        """`label`, such as the node's name, shows in /proc/PID/maps of who maps a shard.

        Each segment is an open file, so this raises the process's soft limit of open files to the hard one.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._lock = threading.RLock()
        self._pool = SegmentPool(memory_limit_bytes, label)
        self._shards: dict[ShardId, _Shard] = {}
        self._grants: dict[int, tuple[RunId, Segment]] = {}

    # What engines make --------------------------------------------------------------------------------------------

    def grant(self, run: RunId, nbytes: int) -> Segment:
        """Room for an output of `run`, to be sealed or released. Raises Full."""
        with self._lock:
            segment = self._pool.take(nbytes, 0, chunk_count(nbytes))
            self._grants[segment.number] = (run, segment)
            return segment

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
            run, _ = self._grants.pop(segment.number)
            segment.nbytes = nbytes
            whole = chunk_mask(0, chunk_count(nbytes))
            known = self._shards.get(shard)
            if known is None:
                known = _Shard(ShardRef(shard, nbytes), segment, tuple(chunk_hashes), whole, set())
                self._shards[shard] = known
            elif known.is_whole:
                self._pool.give(segment)
            else:  # a fetch is under way; who reads or writes the part may finish there
                known.outdated += (known.segment,)
                known.segment, known.hashes, known.present = segment, tuple(chunk_hashes), whole
                self._sweep(known)
            known.runs.add(run)
            return known.ref

    def release(self, segment: Segment) -> None:
        """Give up a grant whose writer is gone. One that was sealed or released before: nothing happens."""
        with self._lock:
            if self._grants.pop(segment.number, None) is not None:
                self._pool.give(segment)

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
        """The bytes of chunks [first, end), read-only. Pin the shard while the view is in use."""
        with self._lock:
            known = self._shards[shard]
            mask = chunk_mask(first, end)
            if known.present & mask != mask:
                raise KeyError(shard)
            return known.segment.view()[first * CHUNK_BYTES : end * CHUNK_BYTES].toreadonly()

    def hashes(self, shard: ShardId) -> tuple[bytes, ...] | None:
        """The hashes of all its chunks; None while they are not known, or the shard is not here."""
        with self._lock:
            known = self._shards.get(shard)
            return known.hashes if known else None

    def pin(self, shard: ShardId) -> None:
        """Keep its memory until as many `unpin`, whatever is dropped meanwhile."""
        with self._lock:
            self._shards[shard].pins += 1

    def unpin(self, shard: ShardId) -> None:
        with self._lock:
            known = self._shards[shard]
            assert known.pins > 0, "unpinned more often than pinned"
            known.pins -= 1
            self._sweep(known)

    def drop(self, run: RunId, shards: Iterable[ShardId]) -> None:
        """`run` no longer refers to these. What is not here is passed over."""
        with self._lock:
            for shard in shards:
                known = self._shards.get(shard)
                if known is not None:
                    known.runs.discard(run)
                    self._sweep(known)

    def usage(self) -> Usage:
        with self._lock:
            by_run: dict[RunId, int] = {}
            for known in self._shards.values():
                for run in sorted(known.runs):
                    by_run[run] = by_run.get(run, 0) + known.segment.resident_bytes
            for run, segment in self._grants.values():
                by_run[run] = by_run.get(run, 0) + segment.resident_bytes
            return Usage(
                limit_bytes=self._pool.limit_bytes,
                used_bytes=self._pool.taken_bytes,
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

    def partial(self, run: RunId, ref: ShardRef, first: int, end: int) -> int:
        """Make room for chunks [first, end) of a shard to be fetched. Returns the bitmap of those that are here.

        Raises Full, and then nothing has changed.
        """
        with self._lock:
            known = self._shards.get(ref.id)
            if known is None:
                segment = self._pool.take(ref.nbytes, first, end)
                known = _Shard(ref, segment, None, 0, set())
                self._shards[ref.id] = known
            else:
                self._pool.extend(known.segment, chunk_mask(first, end))
            known.runs.add(run)
            return known.present

    def set_hashes(self, shard: ShardId, chunk_hashes: Sequence[bytes]) -> None:
        """The hashes of all chunks, checked against the id by the caller. One that was dropped: nothing happens."""
        with self._lock:
            known = self._shards.get(shard)
            if known is not None:
                known.hashes = tuple(chunk_hashes)

    def landing(self, shard: ShardId, index: int) -> memoryview | None:
        """Pin the shard and give the place of chunk `index`, to be ended by `landed`. None if nobody waits for it."""
        with self._lock:
            known = self._shards.get(shard)
            bit = 1 << index
            if known is None or not known.runs or known.present & bit or not known.segment.resident & bit:
                return None
            known.pins += 1
            return known.segment.view()[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]

    def landed(self, shard: ShardId, index: int, is_good: bool) -> None:
        """What was written to `landing` is the chunk, as its hash says, or is not."""
        with self._lock:
            if is_good:
                self._shards[shard].present |= 1 << index
            self.unpin(shard)

    def _sweep(self, known: _Shard) -> None:
        if known.pins:
            return
        for segment in known.outdated:
            self._pool.give(segment)
        known.outdated = ()
        if not known.runs:
            del self._shards[known.ref.id]
            self._pool.give(known.segment)
