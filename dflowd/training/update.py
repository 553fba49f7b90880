"""What engines share of making versions, shards to shards: first parameters, sums of blocks, slices of the root."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dflow_protocols.names import CHUNK_BYTES, ShardRef
from dflow_protocols.ranges import MAX_RANGES, State, cut
from dflow_protocols.work import InitWork, SliceWork, SumWork
from dflowd.jobs.failures import UserError
from dflowd.jobs.job import Job

from .accumulate import Vector, finish, spans, within
from .hashing import ChunkHashes

FLOAT_BYTES = 4
CHUNK = CHUNK_BYTES // FLOAT_BYTES  # elements that a thread takes at a time: what it writes is hashed from the cache


def vector(view: memoryview) -> Vector:
    """A shard of bare float32 values as an array, without a copy."""
    return np.frombuffer(view, np.float32)


def first_state(
    job: Job,
    work: InitWork,
    models: Sequence[str],
    sizes: Sequence[int],
    fill: Callable[[str, Vector], None],
) -> State:
    """The `params:` entries of version 0, cut as the work says. `sizes`: bytes by model. `fill(model, vector)` writes a
    model's parameters, all of them one behind the other. Raises UserError for one that is too large, and NoRoom."""
    cuts = [cut(nbytes, work.range_bytes) for nbytes in sizes]
    for model, each in zip(models, cuts, strict=True):
        if len(each) > MAX_RANGES:
            most = MAX_RANGES * work.range_bytes // FLOAT_BYTES
            raise UserError(f"models.{model}: {sum(each) // FLOAT_BYTES:,} parameters; at most {most:,} can be trained")
    rooms = job.shards.allocate([size for each in cuts for size in each])
    roles = [(model, f"params:{model}") for model, each in zip(models, cuts, strict=True) for _ in each]
    for model in models:
        own = [room for room, (of, _) in zip(rooms, roles, strict=True) if of == model]
        fill(model, vector(job.shards.joined(own)))
    return tuple((role, ref) for (_, role), ref in zip(roles, job.shards.seal(rooms), strict=True))


def sum_blocks(job: Job, work: SumWork) -> tuple[tuple[str, ShardRef], ...]:
    """The gradient of a block from those of its parts, shard by shard. Returns the record's outputs."""
    blocks = [(first, end) for first, end, _ in work.cover]
    rooms = job.shards.allocate([ref.nbytes for ref in work.cover[0][2]])
    parts = [
        (room, vector(out), [vector(job.shards.read(ref)) for ref in across])
        for room, (out, *across) in enumerate(zip(rooms, *(refs for _, _, refs in work.cover), strict=True))
    ]
    hashes = ChunkHashes(rooms)

    def add(given: tuple[int, int, Vector, list[Vector]]) -> None:
        room, at, out, across = given
        out[:] = finish(dict(zip(blocks, across, strict=True)), work.end, work.first)
        hashes.wrote(room, FLOAT_BYTES * at, out.nbytes)

    chunks = (
        (room, span.start, out[span], [part[span] for part in across])
        for room, out, across in parts
        for span in spans(len(out), CHUNK)
    )
    job.threads.map(add, chunks, job.progress)
    return tuple(("gradient", ref) for ref in job.shards.seal(rooms, hashes.by_room))


def reduce_slice(job: Job, work: SliceWork) -> ShardRef:
    """Finish the tree for the work's chunks and divide once, at the root."""
    blocks = [(first, end) for first, end, _ in work.cover]
    pieces = [[vector(job.shards.read_chunks(*piece)) for piece in parts] for _, _, parts in work.cover]
    (room,) = job.shards.allocate([sum(piece.nbytes for piece in pieces[0])])
    out, divisor = vector(room), np.float32(max(1, work.divisor))
    hashes = ChunkHashes([room])

    def finish_chunk(given: tuple[slice, tuple[Vector, ...]]) -> None:
        span, across = given
        np.divide(finish(dict(zip(blocks, across, strict=True)), work.leaves), divisor, out=out[span])
        hashes.wrote(0, FLOAT_BYTES * span.start, out[span].nbytes)

    chunks = zip(spans(len(out), CHUNK), zip(*(within(own, CHUNK) for own in pieces), strict=True), strict=True)
    job.threads.map(finish_chunk, chunks, job.progress)
    return job.shards.seal([room], hashes.by_room)[0]
