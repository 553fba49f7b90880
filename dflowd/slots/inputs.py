"""What a work reads: the shards, or ranges of chunks of them, that must lie in the store before it starts."""

from __future__ import annotations

from dflow_protocols.names import ShardRef, chunk_count
from dflow_protocols.work import ApplyWork, BlockWork, ChainWork, InitWork, LoadWork, SaveWork, SliceWork, Work

Range = tuple[ShardRef, int, int]  # shard, first chunk, end chunk


def inputs_of(work: Work) -> tuple[Range, ...]:
    """Each shard once, in the order in which the work names them."""
    match work:
        case ChainWork():
            refs = [*(ref for _, ref in work.state), *(ref for _, ref in work.inputs)]
        case BlockWork():
            refs = [*(ref for _, ref in work.state), *(ref for _, _, ref in work.inputs)]
        case SliceWork():
            return tuple(dict.fromkeys((ref, work.first, work.end) for _, _, ref in work.cover))
        case ApplyWork():
            refs = [*(ref for _, ref in work.state), *work.slices]
        case InitWork() | LoadWork():
            refs = []
        case SaveWork():
            refs = [ref for _, ref in work.state]
    return tuple((ref, 0, chunk_count(ref.nbytes)) for ref in dict.fromkeys(refs))
