"""Hashes of shards that several threads write: each chunk is hashed by who writes the last of it, out of the cache."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from dflow_protocols.names import CHUNK_BYTES, chunk_hash


class ChunkHashes:
    """Of rooms (jobs/job.py) whose bytes are each written once. Safe for threads."""

    def __init__(self, rooms: Sequence[memoryview]) -> None:
        self._rooms = rooms
        self._missing = [
            [len(room[at : at + CHUNK_BYTES]) for at in range(0, len(room), CHUNK_BYTES)] for room in rooms
        ]
        self._hashes = [[b""] * len(missing) for missing in self._missing]
        self._lock = threading.Lock()

    def wrote(self, room: int, first: int, nbytes: int) -> None:
        """The bytes [first, first + nbytes) of this room are as they shall be."""
        for chunk in self._finished(room, first, first + nbytes):
            start = chunk * CHUNK_BYTES
            self._hashes[room][chunk] = chunk_hash(self._rooms[room][start : start + CHUNK_BYTES])

    @property
    def by_room(self) -> tuple[tuple[bytes, ...], ...]:
        """Once all is written: of each room the hashes of its chunks."""
        assert not any(map(any, self._missing)), "a room is not written to its end"
        return tuple(map(tuple, self._hashes))

    def _finished(self, room: int, first: int, end: int) -> list[int]:
        """The chunks that these bytes complete."""
        found = []
        missing = self._missing[room]
        with self._lock:
            for chunk in range(first // CHUNK_BYTES, -(-end // CHUNK_BYTES)):
                start = chunk * CHUNK_BYTES
                missing[chunk] -= min(end, start + CHUNK_BYTES) - max(first, start)
                if not missing[chunk]:
                    found.append(chunk)
        return found
