"""What engines share of reduction and update: finish a slice of the tree, clip, apply. From shards to shards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dflow_protocols.names import CHUNK_BYTES, ShardRef
from dflow_protocols.work import ApplyWork, SliceWork, SumWork
from dflowd.engines.contract import Shards

from .accumulate import Vector, finish
from .optimizer import AdamW

NORM_BLOCK = 1 << 16  # elements summed in float64 before sums are added: a border that no slicing moves
FLOAT_BYTES = 4
SUM_ELEMENTS = 1 << 22  # added at a time: what lies between two sums is small beside the gradient

assert CHUNK_BYTES % (NORM_BLOCK * FLOAT_BYTES) == 0, "slices are whole chunks, chunks whole blocks"


def vector(view: memoryview) -> Vector:
    """A shard of bare float32 values as an array, without a copy."""
    return np.frombuffer(view, np.float32)


def sum_blocks(shards: Shards, work: SumWork) -> ShardRef:
    """The gradient of a block from those of its parts."""
    parts = {(first, end): vector(shards.read(ref)) for first, end, ref in work.cover}
    (room,) = shards.allocate([next(iter(parts.values())).nbytes])
    total = _writable(room)
    for at in range(0, len(total), SUM_ELEMENTS):
        piece = slice(at, at + SUM_ELEMENTS)
        total[piece] = finish({block: part[piece] for block, part in parts.items()}, work.end, work.first)
    return shards.seal([room])[0]


def reduce_slice(shards: Shards, work: SliceWork) -> ShardRef:
    """Finish the tree for the work's chunks and divide once, at the root."""
    cover = {(first, end): vector(shards.read_chunks(ref, work.first, work.end)) for first, end, ref in work.cover}
    total = finish(cover, work.leaves)
    (room,) = shards.allocate([total.nbytes])
    np.divide(total, np.float32(max(1, work.divisor)), out=_writable(room))
    return shards.seal([room])[0]


def global_norm(pieces: Sequence[Vector]) -> float:
    """Euclidean norm of all pieces together: float64 within fixed blocks, exact (fsum) between them."""
    sums = [
        float(np.square(piece[at : at + NORM_BLOCK], dtype=np.float64).sum())
        for piece in pieces
        for at in range(0, len(piece), NORM_BLOCK)
    ]
    return math.sqrt(math.fsum(sums)) if all(map(math.isfinite, sums)) else math.nan


def apply_slices(
    shards: Shards, work: ApplyWork, model: str, config: Mapping[str, Any]
) -> tuple[tuple[tuple[str, ShardRef], ...], tuple[tuple[str, float], ...]]:
    """One AdamW update beside the old state. Returns the new state's entries, and grad_norm with learning_rate.

    `config`: the training stage's, of which `optimizer` and `clip_norm` are read. An update whose norm is not finite
    leaves the parameters and moments as they are, and shows in `grad_norm`.
    """
    params_name, moments_name = f"params:{model}", f"optimizer:{work.stage}"
    state = dict(work.state)
    pieces = [vector(shards.read(ref)) for ref in work.slices]
    old = vector(shards.read(state[params_name]))
    if sum(map(len, pieces)) != len(old):
        raise ValueError(f"slices of {sum(map(len, pieces))} elements for {len(old)} parameters")
    rooms = shards.allocate([old.nbytes, 2 * old.nbytes] if work.keep_optimizer else [old.nbytes])
    params = _writable(rooms[0])
    np.copyto(params, old)
    moments = _writable(rooms[1]) if work.keep_optimizer else np.empty(2 * len(old), np.float32)
    if moments_name in state:
        np.copyto(moments, vector(shards.read(state[moments_name])))
    else:
        moments.fill(0)
    optimizer = AdamW.from_config(config["optimizer"])
    lr = optimizer.learning_rate(work.update, work.updates)
    norm = global_norm(pieces)
    clip = config.get("clip_norm")
    scale = 1.0 if not clip or norm <= clip else float(clip) / norm
    at = 0
    for piece in pieces if math.isfinite(norm) else []:
        optimizer.step(params, moments, piece, at=at, scale=scale, update=work.update, lr=lr)
        at += len(piece)
    del params, moments
    made = shards.seal(rooms)
    state[params_name] = made[0]
    state.pop(moments_name, None)
    if work.keep_optimizer:
        state[moments_name] = made[1]
    return tuple(sorted(state.items())), (("grad_norm", norm), ("learning_rate", lr))


def _writable(room: memoryview) -> Vector:
    return np.frombuffer(room, np.float32)
