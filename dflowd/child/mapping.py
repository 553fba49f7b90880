"""A call's shards as mapped memory: the daemon's segments, opened by the paths that it names."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from typing import Protocol

from dflow_protocols.names import CHUNK_BYTES, ShardId, ShardRef, chunk_count, chunk_hash, shard_id
from dflowd.jobs.failures import Lost
from dflowd.jobs.job import Hashes
from dflowd.slots.calls import Call, GrantedSegment, Input, Sealed, SealedShard

from .joined import map_joined
from .mappings import Mappings


class Line(Protocol):
    """What a call says to its daemon (link.py)."""

    def send(self, message: Sealed) -> None: ...
    def grant(self, sizes: tuple[int, ...]) -> tuple[GrantedSegment, ...]: ...
    def progress(self) -> None: ...


class MappedShards:
    """The Shards of one call. Mappings live as long as an array into them does."""

    def __init__(self, call: Call, line: Line, mappings: Mappings) -> None:
        self._call, self._room = call.id, call.room
        self._link = line
        self._map = mappings.map
        self._inputs: dict[ShardId, list[Input]] = {}  # of equal shards, each may be read in other chunks
        for given in call.inputs:
            self._inputs.setdefault(given.id, []).append(given)
        self._views: dict[str, memoryview] = {}
        self._segments: dict[int, GrantedSegment] = {}  # id() of a room -> its segment

    def read(self, *refs: ShardRef) -> memoryview:
        views = [self._chunks(ref, 0, chunk_count(ref.nbytes)) for ref in refs]
        if len(refs) == 1:
            return views[0]
        files = [(self._inputs[ref.id][0].path, ref.nbytes) for ref in refs]
        return map_joined(files, mmap.PROT_READ).toreadonly()

    def read_chunks(self, ref: ShardRef, first: int, end: int) -> memoryview:
        return self._chunks(ref, first, end)[first * CHUNK_BYTES : end * CHUNK_BYTES]

    def allocate(self, sizes: Sequence[int]) -> list[memoryview]:
        segments = self._with_call(sizes) or self._link.grant(tuple(sizes))
        rooms = [
            self._map(segment.path, nbytes, mmap.PROT_READ | mmap.PROT_WRITE)
            for segment, nbytes in zip(segments, sizes, strict=True)
        ]
        for room, segment in zip(rooms, segments, strict=True):
            self._segments[id(room)] = segment
        return rooms

    def _with_call(self, sizes: Sequence[int]) -> tuple[GrantedSegment, ...]:
        """Of the room that came with the call, as far as it is not used yet: that for these, or none if it is too
        little."""
        room = self._room[: len(sizes)]
        if len(room) < len(sizes) or any(nbytes > segment.nbytes for segment, nbytes in zip(room, sizes, strict=True)):
            return ()
        self._room = self._room[len(sizes) :]
        return room

    def joined(self, rooms: Sequence[memoryview]) -> memoryview:
        if len(rooms) == 1:
            return rooms[0]
        files = [(self._segments[id(room)].path, len(room)) for room in rooms]
        return map_joined(files, mmap.PROT_READ | mmap.PROT_WRITE)

    def seal(self, rooms: Sequence[memoryview], hashes: Hashes | None = None) -> tuple[ShardRef, ...]:
        sealed = []
        for place, room in enumerate(rooms):
            own = tuple(self._hashes(room) if hashes is None else hashes[place])
            shard = shard_id(len(room), own)
            sealed.append(SealedShard(self._segments.pop(id(room)).id, shard, len(room), own))
        self._link.send(Sealed(self._call, tuple(sealed)))
        return tuple(ShardRef(shard.id, shard.nbytes) for shard in sealed)

    def _hashes(self, room: memoryview) -> Iterator[bytes]:
        for at in range(0, len(room), CHUNK_BYTES):
            yield chunk_hash(room[at : at + CHUNK_BYTES])
            self._link.progress()

    def _chunks(self, ref: ShardRef, first: int, end: int) -> memoryview:
        fits = [given for given in self._inputs.get(ref.id, ()) if given.first <= first <= end <= given.end]
        if not fits or fits[0].nbytes != ref.nbytes:
            raise Lost(ref.id)
        given = fits[0]
        if ref.id not in self._views:
            try:
                self._views[ref.id] = self._map(given.path, given.nbytes, mmap.PROT_READ)
            except OSError as error:
                raise Lost(ref.id) from error
            if not self._is_as_named(given, self._views[ref.id]):
                raise Lost(ref.id)
        return self._views[ref.id]

    def _is_as_named(self, given: Input, view: memoryview) -> bool:
        """Whether chunks that were read back from disk are those that were written; nothing else needs to be asked."""
        for index in range(given.first, given.end if given.hashes else given.first):
            if chunk_hash(view[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]) != given.hashes[index]:
                return False
            self._link.progress()
        return True
