"""A block of leaves, summed and published: what every engine does alike around its own gradients."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

from dflow_protocols.metrics import merge
from dflow_protocols.work import BlockWork, Done, LeafGroups, Made
from dflowd.engines.contract import Job

from .accumulate import BlockStack, Vector
from .update import FLOAT_BYTES, vector

Sums = Mapping[str, float]


def sum_block(job: Job, work: BlockWork, size: int, add: Callable[[LeafGroups, Vector], Sums]) -> Done:
    """Sum the work's leaves by the fixed tree, as far as they are not given away meanwhile.

    `size`: of the gradient, float32 values. `add`: adds a leaf's gradient to a vector [size] of zeros, and gives its
    metrics. Raises Full and GivenUp.
    """
    start = time.perf_counter()
    groups = {leaf.leaf: leaf for leaf in work.leaves}
    (room,) = job.shards.allocate([FLOAT_BYTES * size])
    stack = BlockStack(work.first, work.end)
    stack.lend(vector(room))
    sums: dict[int, Sums] = {}
    for leaf in range(work.first, work.end):
        if not job.leaf(leaf):
            break
        if leaf not in groups:
            stack.push(None)
            continue
        gradient = stack.blank(size)
        sums[leaf] = add(groups[leaf], gradient)
        stack.push(gradient)
    blocks = stack.blocks()
    refs = job.shards.seal(_in_rooms(job, room, [total for _, _, total in blocks]))
    seconds = (time.perf_counter() - start) / max(1, len(blocks))
    made = []
    for ref, (first, end, _) in zip(refs, blocks, strict=True):
        metrics = merge(tuple(sums[leaf].items()) for leaf in range(first, end) if leaf in sums)
        part = "" if (first, end) == (work.first, work.end) else f"b{first}-{end}"
        made.append(Made(work.stage, (("gradient", ref),), metrics, seconds=seconds, part=part))
    return Done(tuple(made))


def _in_rooms(job: Job, room: memoryview, totals: list[Vector | None]) -> list[memoryview]:
    """A room for each total, in order. One of them lies in `room` already; a whole block needs no other."""
    lent = vector(room)
    here = next((k for k, total in enumerate(totals) if total is not None and np.shares_memory(total, lent)), 0)
    rooms = job.shards.allocate([len(room)] * (len(totals) - 1)) if len(totals) > 1 else []
    rooms[here:here] = [room] if totals else []
    for place, (where, total) in enumerate(zip(rooms, totals, strict=True)):
        if total is None:
            vector(where).fill(0)
        elif place != here:
            vector(where)[:] = total
    return rooms
