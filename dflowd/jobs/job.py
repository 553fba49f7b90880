"""What surrounds one work: its pipeline, its folders, its shards, and who is told of its progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

from dflow_protocols.names import ShardRef
from dflow_protocols.pipeline import Pipeline
from dflowd.slots.doing import Board

from .baton import Baton
from .limits import Limits
from .threads import Threads

Hashes: TypeAlias = Sequence[Sequence[bytes]]
"""Of each of several shards, the hashes of its chunks."""


class Shards(Protocol):
    """The shards of one call: inputs mapped from the daemon's store, outputs written into it."""

    def read(self, *refs: ShardRef) -> memoryview:
        """Whole inputs one behind the other, read-only bytes, without a copy. Raises Lost."""

    def read_chunks(self, ref: ShardRef, first: int, end: int) -> memoryview:
        """Chunks [first, end) of an input that may lack others. Raises Lost."""

    def allocate(self, sizes: Sequence[int]) -> list[memoryview]:
        """Room for outputs of these lengths in bytes, holding anything. Raises NoRoom, or TooLarge."""

    def joined(self, rooms: Sequence[memoryview]) -> memoryview:
        """The same memory as one view, one room behind the other. All but the last must be whole chunks."""

    def seal(
        self, rooms: Sequence[memoryview], hashes: Sequence[Sequence[bytes]] | None = None
    ) -> tuple[ShardRef, ...]:
        """The rooms are written, and become shards. `hashes`: of each room's chunks, by whoever wrote them; else they
        are hashed now. Raises GivenUp."""


def put(shards: Shards, blobs: Sequence[bytes], hashes: Hashes | None = None) -> tuple[ShardRef, ...]:
    """Store small outputs. `hashes`: of each one's chunks, where they are known. Raises NoRoom."""
    rooms = shards.allocate([len(blob) for blob in blobs])
    for room, blob in zip(rooms, blobs, strict=True):
        room[:] = blob
    return shards.seal(rooms, hashes)


@dataclass(frozen=True, slots=True)
class Job:
    """What surrounds one work."""

    pipeline: Pipeline
    base: Path  # folder that relative paths of the spec start from
    code: Path  # folder that users' functions are loaded from
    folder: Path  # where checkpoints of the run go
    shards: Shards
    progress: Callable[[], None]  # to be called every few seconds: after each pass, sample, chunk; raises GivenUp
    leaf: Callable[[int], bool] = lambda leaf: True  # to be called before each leaf of a block; False: end before it
    board: Board = field(default_factory=Board)  # what is being done, for who finds the engine dead or hung
    opaque: Callable[[], AbstractContextManager[None]] = nullcontext  # around a library's call that tells no progress
    threads: Threads = field(default_factory=Threads)  # for what is cut into pieces
    baton: Baton = field(default_factory=Baton)  # among the calls that this process works on
    limits: Limits = field(default_factory=Limits)  # of what runs user code
