"""A block of leaves, summed and published: what every engine does alike around its own gradients."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

from dflow_protocols.metrics import merge
from dflow_protocols.names import Block
from dflow_protocols.work import BlockWork, Done, LeafGroups, Made
from dflowd.jobs.job import Job

from .accumulate import BlockStack, Vector, spans
from .update import FLOAT_BYTES, vector

Sums = Mapping[str, float]


def sum_block(job: Job, work: BlockWork, add: Callable[[LeafGroups, Vector], Sums]) -> Done:
    """Sum the work's leaves by the fixed tree, as far as they are not given away meanwhile.

    `add`: adds a leaf's gradient to a vector [parameters] of zeros, and gives its metrics. Raises NoRoom and GivenUp.
    """
    start = time.perf_counter()
    groups = {leaf.leaf: leaf for leaf in work.leaves}
    sizes = [ref.nbytes for name, ref in work.state if name.startswith("params:")]
    size = sum(sizes) // FLOAT_BYTES
    rooms = job.shards.allocate(sizes)
    stack = BlockStack(work.first, work.end, job.progress)
    lent = vector(job.shards.joined(rooms))
    stack.lend(lent)
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
    refs = iter(job.shards.seal(_in_rooms(job, rooms, lent, [total for _, _, total in blocks])))
    seconds = (time.perf_counter() - start) / max(1, len(blocks))
    made = []
    for first, end, _ in blocks:
        outputs = tuple(("gradient", next(refs)) for _ in rooms)
        metrics = merge(tuple(sums[leaf].items()) for leaf in range(first, end) if leaf in sums)
        block = None if (first, end) == (work.first, work.end) else Block(first, end)
        made.append(Made(work.stage, outputs, metrics, seconds=seconds, block=block))
    return Done(tuple(made))


def _in_rooms(job: Job, rooms: list[memoryview], lent: Vector, totals: list[Vector | None]) -> list[memoryview]:
    """The rooms of all totals, in order. One total lies in `lent`, which is `rooms`; a whole block needs no others."""
    here = next((k for k, total in enumerate(totals) if total is not None and np.shares_memory(total, lent)), 0)
    sizes = [len(room) for room in rooms]
    more = job.shards.allocate(sizes * (len(totals) - 1)) if len(totals) > 1 else []
    found = [more[at : at + len(sizes)] for at in range(0, len(more), len(sizes))]
    found[here:here] = [rooms] if totals else []
    for place, (parts, total) in enumerate(zip(found, totals, strict=True)):
        if total is not None and place == here:
            continue
        out = lent if place == here else vector(job.shards.joined(parts))
        for span in spans(len(out)):
            out[span] = 0 if total is None else total[span]
            job.progress()
    return [part for parts in found for part in parts]
