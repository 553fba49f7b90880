"""A call's shards as mapped memory: the daemon's segments, opened by the paths that it names."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence

from blake3 import blake3

from dflow_protocols.names import CHUNK_BYTES, ShardRef, hash_shard
from dflowd.slots.calls import Call, Input, Sealed, SealedShard, Segment

from .contract import Lost
from .link import Link


class MappedShards:
    """The Shards of one call. Mappings live as long as an array into them does."""

    def __init__(self, call: Call, link: Link) -> None:
        self._call = call.id
        self._link = link
        self._inputs = {given.id: given for given in call.inputs}
        self._views: dict[str, memoryview] = {}
        self._segments: dict[int, Segment] = {}  # id() of a room -> its segment

    def read(self, ref: ShardRef) -> memoryview:
        return self._chunks(ref, 0, -(-ref.nbytes // CHUNK_BYTES))

    def read_chunks(self, ref: ShardRef, first: int, end: int) -> memoryview:
        return self._chunks(ref, first, end)[first * CHUNK_BYTES : end * CHUNK_BYTES]

    def allocate(self, sizes: Sequence[int]) -> list[memoryview]:
        segments = self._link.grant(tuple(sizes))
        rooms = [_map(segment.path, segment.nbytes, mmap.PROT_READ | mmap.PROT_WRITE) for segment in segments]
        for room, segment in zip(rooms, segments, strict=True):
            self._segments[id(room)] = segment
        return rooms

    def seal(self, rooms: Sequence[memoryview]) -> tuple[ShardRef, ...]:
        sealed = []
        for room in rooms:
            shard, hashes = hash_shard(room)
            sealed.append(SealedShard(self._segments.pop(id(room)).id, shard, len(room), hashes))
        self._link.send(Sealed(self._call, tuple(sealed)))
        return tuple(ShardRef(shard.id, shard.nbytes) for shard in sealed)

    def _chunks(self, ref: ShardRef, first: int, end: int) -> memoryview:
        given = self._inputs.get(ref.id)
        if given is None or given.nbytes != ref.nbytes or not given.first <= first <= end <= given.end:
            raise Lost(ref.id)
        if ref.id not in self._views:
            try:
                self._views[ref.id] = _map(given.path, given.nbytes, mmap.PROT_READ)
            except OSError as error:
                raise Lost(ref.id) from error
            if not _is_as_named(given, self._views[ref.id]):
                raise Lost(ref.id)
        return self._views[ref.id]


def _is_as_named(given: Input, view: memoryview) -> bool:
    """Whether chunks that were read back from disk are those that were written; nothing else needs to be asked."""
    return all(
        blake3(view[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]).digest() == given.hashes[index]
        for index in range(given.first, given.end if given.hashes else given.first)
    )


def _map(path: str, nbytes: int, protection: int) -> memoryview:
    if not nbytes:
        return memoryview(b"" if protection == mmap.PROT_READ else bytearray())
    handle = os.open(path, os.O_RDWR if protection & mmap.PROT_WRITE else os.O_RDONLY)
    try:
        if os.fstat(handle).st_size < nbytes:
            raise OSError(f"{path} is shorter than {nbytes} bytes")
        return memoryview(mmap.mmap(handle, nbytes, mmap.MAP_SHARED, protection))
    finally:
        os.close(handle)
