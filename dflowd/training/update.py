"""What engines share of reduction and update: finish a slice of the tree, clip, apply. From shards to shards."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dflow_protocols.names import CHUNK_BYTES, ShardRef
from dflow_protocols.ranges import MAX_RANGES, State, cut, in_order, shards_of
from dflow_protocols.work import ApplyWork, InitWork, SliceWork, SumWork
from dflowd.jobs.failures import UserError
from dflowd.jobs.job import Job

from .accumulate import Vector, finish, spans
from .optimizer import AdamW

NORM_BLOCK = 1 << 16  # elements summed in float64 before sums are added: a border that no slicing moves
FLOAT_BYTES = 4

assert CHUNK_BYTES % (NORM_BLOCK * FLOAT_BYTES) == 0, "slices are whole chunks, chunks whole blocks"


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
    for room, across in zip(rooms, zip(*(refs for _, _, refs in work.cover), strict=True), strict=True):
        total, parts = vector(room), [vector(job.shards.read(ref)) for ref in across]
        for span in spans(len(total)):
            total[span] = finish({b: part[span] for b, part in zip(blocks, parts, strict=True)}, work.end, work.first)
            job.progress()
    return tuple(("gradient", ref) for ref in job.shards.seal(rooms))


def reduce_slice(job: Job, work: SliceWork) -> ShardRef:
    """Finish the tree for the work's chunks and divide once, at the root."""
    blocks = [(first, end) for first, end, _ in work.cover]
    pieces = [
        [vector(job.shards.read_chunks(*piece)) for piece in across]
        for across in zip(*(parts for _, _, parts in work.cover), strict=True)  # the same chunks of every block
    ]
    (room,) = job.shards.allocate([sum(across[0].nbytes for across in pieces)])
    out, at, divisor = vector(room), 0, np.float32(max(1, work.divisor))
    for across in pieces:
        for span in spans(len(across[0])):
            total = finish({b: part[span] for b, part in zip(blocks, across, strict=True)}, work.leaves)
            np.divide(total, divisor, out=out[at : at + len(total)])
            at += len(total)
            job.progress()
    return job.shards.seal([room])[0]


def global_norm(pieces: Sequence[Vector], progress: Callable[[], None] = lambda: None) -> float:
    """Euclidean norm of all pieces together: float64 within fixed blocks, exact (fsum) between them."""
    sums = []
    for piece in pieces:
        for at in range(0, len(piece), NORM_BLOCK):
            sums.append(float(np.square(piece[at : at + NORM_BLOCK], dtype=np.float64).sum()))
            progress()
    return math.sqrt(math.fsum(sums)) if all(map(math.isfinite, sums)) else math.nan


def apply_slices(
    job: Job, work: ApplyWork, model: str, config: Mapping[str, Any]
) -> tuple[tuple[tuple[str, ShardRef], ...], tuple[tuple[str, float], ...]]:
    """One AdamW update beside the old state. Returns the new state's entries, and grad_norm with learning_rate.

    `config`: the training stage's, of which `optimizer` and `clip_norm` are read. An update whose norm is not finite
    leaves the parameters and moments as they are, and shows in `grad_norm`.
    """
    roles = (f"params:{model}", f"optimizer:{work.stage}")
    old, old_moments = (shards_of(work.state, role) for role in roles)
    pieces = [vector(job.shards.read(ref)) for ref in work.slices]
    sizes = [ref.nbytes for ref in old]
    if sum(piece.nbytes for piece in pieces) != sum(sizes):
        raise ValueError(f"slices of {sum(map(len, pieces))} elements for {sum(sizes) // FLOAT_BYTES} parameters")
    kept = roles if work.keep_optimizer else roles[:1]
    rooms = job.shards.allocate([size * share for share, _ in enumerate(kept, 1) for size in sizes])
    optimizer = AdamW.from_config(config["optimizer"])
    lr = optimizer.learning_rate(work.update, work.updates)
    norm = global_norm(pieces, job.progress)
    clip = config.get("clip_norm")
    scale = 1.0 if not clip or norm <= clip else float(clip) / norm
    start = 0
    for part, ref in enumerate(old):
        params = vector(rooms[part])
        _copy(job, vector(job.shards.read(ref)), params)
        moments = vector(rooms[len(old) + part]) if work.keep_optimizer else np.empty(2 * len(params), np.float32)
        _copy(job, vector(job.shards.read(old_moments[part])) if old_moments else None, moments)
        for at, piece in within(pieces, start, start + len(params)) if math.isfinite(norm) else ():
            optimizer.step(
                params,
                moments,
                piece,
                at=at - start,
                scale=scale,
                update=work.update,
                lr=lr,
                progress=job.progress,
            )
        start += len(params)
        del params, moments
    made = job.shards.seal(rooms)
    names = [role for role in kept for _ in old]
    others = [entry for entry in work.state if entry[0] not in roles]
    return in_order([*others, *zip(names, made, strict=True)]), (("grad_norm", norm), ("learning_rate", lr))


def _copy(job: Job, source: Vector | None, into: Vector) -> None:
    """Zeros where there is no source."""
    for span in spans(len(into)):
        into[span] = 0 if source is None else source[span]
        job.progress()


def within(vectors: Sequence[Vector], first: int, end: int) -> Iterator[tuple[int, Vector]]:
    """The elements [first, end) of vectors that lie one behind the other: views, each with where it begins."""
    at = 0
    for each in vectors:
        low, high = max(first, at), min(end, at + len(each))
        if low < high:
            yield low, each[low - at : high - at]
        at += len(each)
