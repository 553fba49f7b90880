"""What engines share of making versions, shards to shards: first parameters, sums of blocks, slices of the root."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from dflow_protocols.names import CHUNK_BYTES, ShardRef
from dflow_protocols.pipeline.grammar.signatures import gradient_bytes
from dflow_protocols.ranges import FLOAT_BYTES, MAX_RANGES, State, cut
from dflow_protocols.work import InitWork, SliceWork, SumWork
from dflowd.jobs.failures import UserError
from dflowd.jobs.job import Job

from .accumulate import Finisher, Stored, Vector, spans, store, within
from .hashing import ChunkHashes

CHUNK = CHUNK_BYTES // FLOAT_BYTES  # elements that a thread takes at a time: what it writes is hashed from the cache


def vector(view: memoryview) -> Vector:
    """A shard of bare float32 values as an array, without a copy."""
    return np.frombuffer(view, np.float32)


def stored(view: memoryview, element_bytes: int) -> Stored:
    """A shard of a block's gradient, of so many bytes an element, without a copy."""
    return vector(view) if element_bytes == FLOAT_BYTES else np.frombuffer(view, np.uint16)


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


class _Own(threading.local):
    """A thread's own memory."""

    def __init__(self) -> None:
        self.finisher = Finisher()


def sum_blocks(job: Job, work: SumWork) -> tuple[tuple[str, ShardRef], ...]:
    """The gradient of a block from those of its parts, shard by shard. Returns the record's outputs."""
    blocks = [(first, end) for first, end, _ in work.cover]
    size = gradient_bytes(job.pipeline.stage(work.stage).config)
    rooms = job.shards.allocate([ref.nbytes for ref in work.cover[0][2]])
    parts = [
        (room, stored(out, size), [stored(job.shards.read(ref), size) for ref in across])
        for room, (out, *across) in enumerate(zip(rooms, *(refs for _, _, refs in work.cover), strict=True))
    ]
    hashes, own = ChunkHashes(rooms), _Own()

    def add(given: tuple[int, int, Stored, list[Stored]]) -> None:
        room, at, out, across = given
        store(own.finisher.finish(dict(zip(blocks, across, strict=True)), work.end, work.first), out)
        hashes.wrote(room, size * at, out.nbytes)

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
    size = gradient_bytes(job.pipeline.stage(work.stage).config)
    pieces = [[stored(job.shards.read_chunks(*piece), size) for piece in parts] for _, _, parts in work.cover]
    (room,) = job.shards.allocate([sum(FLOAT_BYTES * len(piece) for piece in pieces[0])])
    out, divisor = vector(room), np.float32(max(1, work.divisor))
    hashes, own = ChunkHashes([room]), _Own()

    def finish_chunk(given: tuple[slice, tuple[Stored, ...]]) -> None:
        span, across = given
        total = own.finisher.finish(dict(zip(blocks, across, strict=True)), work.leaves)
        np.divide(total, divisor, out=out[span])
        hashes.wrote(0, FLOAT_BYTES * span.start, out[span].nbytes)

    chunks = zip(spans(len(out), CHUNK), zip(*(within(each, CHUNK) for each in pieces), strict=True), strict=True)
    job.threads.map(finish_chunk, chunks, job.progress)
    return job.shards.seal([room], hashes.by_room)[0]
