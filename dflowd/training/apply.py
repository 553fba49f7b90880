"""One optimizer update, from shards to shards: clip, AdamW, hash, by chunks that each stay in the cache from the first
read to the hash, on as many threads as the host gives.

Each element is the same function of the same elements in whatever thread, and the norm is summed within fixed blocks,
so any number of threads makes the same bytes. Old parameters and moments are read where they lie and new ones written
beside them: nothing is copied first.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dflow_protocols.metrics import GRAD_NORM, LEARNING_RATE, UPDATE_SKIPPED
from dflow_protocols.ranges import FLOAT_BYTES, State, in_order, shards_of
from dflow_protocols.work import ApplyWork
from dflowd.jobs.job import Job

from .accumulate import Vector, within
from .hashing import ChunkHashes
from .optimizer import AdamW, Parts, Scratch
from .update import CHUNK, vector

NORM_BLOCK = 1 << 16  # elements summed in float64 before sums are added: a border that no slicing moves

assert CHUNK % NORM_BLOCK == 0, "slices are whole chunks, chunks whole blocks"

Metrics = tuple[tuple[str, float], ...]


def global_norm(job: Job, pieces: Sequence[Vector]) -> float:
    """Euclidean norm of all pieces together: float64 within fixed blocks, exact (fsum) between them."""
    parts = (piece[at : at + CHUNK] for piece in pieces for at in range(0, len(piece), CHUNK))
    sums = [each for found in job.threads.map(_squares, parts, job.progress) for each in found]
    return math.sqrt(math.fsum(sums)) if all(map(math.isfinite, sums)) else math.nan


def _squares(piece: Vector) -> list[float]:
    """The sum of squares of each of its blocks."""
    blocks = (piece[at : at + NORM_BLOCK] for at in range(0, len(piece), NORM_BLOCK))
    return [float(np.square(block, dtype=np.float64).sum()) for block in blocks]


def apply_slices(job: Job, work: ApplyWork, model: str, config: Mapping[str, Any]) -> tuple[State, Metrics]:
    """One AdamW update beside the old state. Returns the new state's entries, and grad_norm with learning_rate.

    `config`: the training stage's, of which `optimizer`, `clip_norm` and `on_nonfinite` are read. An update whose norm
    is not finite leaves the parameters and moments as they are; `grad_norm` is no number then, which ends the run, or
    update_skipped is there in its place.
    """
    roles = (f"params:{model}", f"optimizer:{work.stage}")
    old, old_moments = (shards_of(work.state, role) for role in roles)
    slices = [vector(job.shards.read(ref)) for ref in work.slices]
    sizes = [ref.nbytes for ref in old]
    if sum(piece.nbytes for piece in slices) != sum(sizes):
        raise ValueError(f"slices of {sum(map(len, slices))} elements for {sum(sizes) // FLOAT_BYTES} parameters")
    kept = roles if work.keep_optimizer else roles[:1]
    rooms = job.shards.allocate([size * share for share, _ in enumerate(kept, 1) for size in sizes])
    before = _cut([vector(job.shards.read(ref)) for ref in old], [vector(job.shards.read(r)) for r in old_moments])
    after = _cut([vector(room) for room in rooms[: len(old)]], [vector(room) for room in rooms[len(old) :]])
    optimizer = AdamW.from_config(config["optimizer"])
    lr = optimizer.learning_rate(work.update, work.updates)
    norm = global_norm(job, slices)
    clip = config.get("clip_norm")
    scale = 1.0 if not clip or norm <= clip else float(clip) / norm
    update = _Update(optimizer, scale if math.isfinite(norm) else None, work.update, lr, ChunkHashes(rooms))
    job.threads.map(update.make, zip(before, within(slices, CHUNK), after, strict=True), job.progress)
    made = job.shards.seal(rooms, update.hashes.by_room)
    names = [role for role in kept for _ in old]
    others = [entry for entry in work.state if entry[0] not in roles]
    is_skipped = not math.isfinite(norm) and config.get("on_nonfinite") == "skip"
    told = (UPDATE_SKIPPED, 1.0) if is_skipped else (GRAD_NORM, norm)
    return in_order([*others, *zip(names, made, strict=True)]), (told, (LEARNING_RATE, lr))


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Some elements of one shard: these parameters, and their moments; None where there are none. `places`: of each
    vector that is there the number of its shard (all parameters' shards, then all moments'), and its first byte."""

    params: Vector
    first: Vector | None
    second: Vector | None
    places: tuple[tuple[int, int], ...]

    def filled(self, spare: Parts) -> Parts:
        """With `spare` for moments that are not there."""
        size = len(self.params)
        first = spare.first[:size] if self.first is None else self.first
        return Parts(self.params, first, spare.second[:size] if self.second is None else self.second)


def _cut(params: Sequence[Vector], moments: Sequence[Vector]) -> Iterator[_Chunk]:
    """Chunk by chunk of each shard. `moments`: of each shard [2n], first then second; or none at all."""
    for part, each in enumerate(params):
        for at in range(0, len(each), CHUNK):
            end, own = min(at + CHUNK, len(each)), moments[part] if moments else None
            first, second = (None, None) if own is None else (own[at:end], own[len(each) + at : len(each) + end])
            starts = ((part, at), *((len(params) + part, start) for start in (at, len(each) + at) if own is not None))
            yield _Chunk(each[at:end], first, second, tuple((room, FLOAT_BYTES * start) for room, start in starts))


class _Own(threading.local):
    """A thread's own memory."""

    def __init__(self) -> None:
        self.scratch = Scratch()
        self.unkept = Parts(*(np.empty(CHUNK, np.float32) for _ in range(3)))


@dataclass(frozen=True, slots=True)
class _Update:
    """What is done to each chunk. `scale` multiplies its gradient; None: all stays as it is."""

    optimizer: AdamW
    scale: float | None
    number: int
    lr: float
    hashes: ChunkHashes
    _own: _Own = field(default_factory=_Own)
    _zeros: Parts = field(default_factory=lambda: Parts(*[np.zeros(CHUNK, np.float32)] * 3))

    def make(self, given: tuple[_Chunk, Vector, _Chunk]) -> None:
        before, gradient, after = given
        old, new = before.filled(self._zeros), after.filled(self._own.unkept)
        if self.scale is None:
            for source, into in zip(old, new, strict=True):
                np.copyto(into, source)
        else:
            scratch = self._own.scratch
            self.optimizer.step(old, gradient, new, scale=self.scale, update=self.number, lr=self.lr, scratch=scratch)
        for room, first in after.places:
            self.hashes.wrote(room, first, after.params.nbytes)
