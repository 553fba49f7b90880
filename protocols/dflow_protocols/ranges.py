"""Ranges: how what is as large as a model lies in shards of a bounded length. Pure arithmetic.

A version's state is an ordered list of shards: roles sorted, and of each role (`params:<model>`, `optimizer:<stage>`)
its ranges from first to last, one while it fits. Version 0 settles where a model's parameters are cut; moments,
gradients and all later versions are cut at the same elements. So nobody but who makes version 0 knows the bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from .names import CHUNK_BYTES, ShardRef, chunk_count
from .pipeline.grammar.signatures import gradient_bytes
from .pipeline.spec import Pipeline

State: TypeAlias = tuple[tuple[str, ShardRef], ...]
"""A version's whole state: roles sorted, each role's shards in order; one that is too long for a shard lies in several,
so a name may come again. `params:<model>`: float32 little-endian parameters, names sorted, tied ones once; its shards
are one vector. `optimizer:<stage>`: for each shard of these AdamW's first moments, then its second. `base:<model>`:
where a model's adapters alone are its parameters, the hash of the weights that they belong to, BASE_BYTES."""

Piece: TypeAlias = tuple[ShardRef, int, int]
"""Chunks [first, end) of a shard."""

FLOAT_BYTES = 4  # of an element of parameters and moments

# A loop decodes a shard's list of hashes and checks it against the id: 2.3 ms for the 8,192 of 8 GiB, 5.7 for twice as
# many (measured). Nothing above 5 ms may run on a loop.
SHARD_BYTES = 8 << 30  # of the longest shard of a state
RANGE_BYTES = SHARD_BYTES // 2  # of parameters in one shard: the moments of as many are twice as long
BASE_BYTES = 32  # BLAKE3
MAX_RANGES = 512  # of a role, so that a record may name a gradient's: 2 TiB, 5.5e11 parameters

assert RANGE_BYTES % CHUNK_BYTES == 0


def range_bytes(pipeline: Pipeline) -> int:
    """How many bytes of parameters lie in one shard, where the run's version 0 is made. A profile of the emulated
    engine may set fewer (`range_bytes`), so that a small model is cut as a large one is. A gradient is cut at the same
    elements, and there, too, between two chunks."""
    asked = int(pipeline.emulated.get("range_bytes", RANGE_BYTES))
    unit = CHUNK_BYTES * max(FLOAT_BYTES // gradient_bytes(stage.config) for stage in pipeline.stages)
    return max(1, -(-asked // unit)) * unit


def gradient_sizes(params: Iterable[ShardRef], element_bytes: int) -> tuple[int, ...]:
    """Lengths of the shards of a block's gradient, of so many bytes an element, for these shards of parameters."""
    return tuple(ref.nbytes // FLOAT_BYTES * element_bytes for ref in params)


def cut(nbytes: int, bound: int) -> tuple[int, ...]:
    """Lengths of the ranges of `nbytes`, each but the last of `bound`: whole chunks. One, empty, of nothing."""
    return tuple(min(bound, nbytes - at) for at in range(0, max(1, nbytes), bound))


def is_cut(sizes: Sequence[int]) -> bool:
    """Whether ranges can have these lengths."""
    has_good_borders = all(size > 0 and size % CHUNK_BYTES == 0 for size in sizes[:-1])
    return 0 < len(sizes) <= MAX_RANGES and has_good_borders and (sizes[-1] > 0 or len(sizes) == 1)


def in_order(entries: Iterable[tuple[str, ShardRef]]) -> State:
    """Roles sorted, the ranges of each as they came."""
    return tuple(sorted(entries, key=lambda entry: entry[0]))


def shards_of(state: State, role: str) -> tuple[ShardRef, ...]:
    """A role's shards, first to last; none if it is not there."""
    return tuple(ref for name, ref in state if name == role)


def total_bytes(refs: Iterable[ShardRef]) -> int:
    return sum(ref.nbytes for ref in refs)


def pieces(refs: Iterable[ShardRef], first: int, end: int) -> tuple[Piece, ...]:
    """Where chunks [first, end) of these shards together lie, as ranges of chunks of each."""
    found: list[Piece] = []
    at = 0  # the shard's first chunk
    for ref in refs:
        count = chunk_count(ref.nbytes)
        low, high = max(first, at) - at, min(end, at + count) - at
        if low < high:
            found.append((ref, low, high))
        at += count
    return tuple(found)
