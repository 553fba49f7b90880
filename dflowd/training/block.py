"""A block of leaves, summed and published: what every engine does alike around its own gradients."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from dflow_protocols.metrics import merge
from dflow_protocols.names import Block, ShardRef
from dflow_protocols.pipeline.grammar.signatures import gradient_bytes
from dflow_protocols.ranges import FLOAT_BYTES, gradient_sizes
from dflow_protocols.work import BlockWork, Done, LeafGroups, Made
from dflowd.jobs.job import Job

from .accumulate import BlockStack, Memory, Stored, spans
from .update import stored

Sums = Mapping[str, float]
V = TypeVar("V")


def size_of(work: BlockWork) -> int:
    """Elements of the gradient."""
    return sum(ref.nbytes for ref in _params(work)) // FLOAT_BYTES


def sum_block(job: Job, work: BlockWork, memory: Memory[V], add: Callable[[LeafGroups], tuple[V | None, Sums]]) -> Done:
    """Sum the work's leaves by the fixed tree, as far as they are not given away meanwhile.

    `memory`: of vectors as long as `size_of` says. `add`: a leaf's gradient, there, and its metrics; None for one of
    zeros. Raises NoRoom and GivenUp.
    """
    start = time.perf_counter()
    groups = {leaf.leaf: leaf for leaf in work.leaves}
    size = gradient_bytes(job.pipeline.stage(work.stage).config)
    rooms = job.shards.allocate(gradient_sizes(_params(work), size))
    lent = stored(job.shards.joined(rooms), size)
    if size == FLOAT_BYTES:
        memory.lend(lent.view(np.float32))
    stack = BlockStack(work.first, work.end, memory, is_rounded=size < FLOAT_BYTES)
    sums: dict[int, Sums] = {}
    for leaf in range(work.first, work.end):
        if not job.leaf(leaf):
            break
        gradient: V | None = None
        if leaf in groups:
            gradient, sums[leaf] = add(groups[leaf])
        stack.push(gradient)
    blocks = stack.blocks()
    refs = iter(job.shards.seal(_written(job, memory, rooms, lent, [total for _, _, total in blocks])))
    seconds = (time.perf_counter() - start) / max(1, len(blocks))
    made = []
    for first, end, _ in blocks:
        outputs = tuple(("gradient", next(refs)) for _ in rooms)
        metrics = merge(tuple(sums[leaf].items()) for leaf in range(first, end) if leaf in sums)
        block = None if (first, end) == (work.first, work.end) else Block(first, end)
        made.append(Made(work.stage, outputs, metrics, seconds=seconds, block=block))
    return Done(tuple(made))


def _params(work: BlockWork) -> list[ShardRef]:
    return [ref for name, ref in work.state if name.startswith("params:")]


def _written(
    job: Job, memory: Memory[V], rooms: list[memoryview], lent: Stored, totals: Sequence[V | None]
) -> list[memoryview]:
    """The rooms of all totals, in order. One total may lie in `lent`, which is `rooms`; a whole block needs no
    others."""
    here = next((k for k, total in enumerate(totals) if total is not None and memory.lies_in(total, lent)), 0)
    sizes = [len(room) for room in rooms]
    more = job.shards.allocate(sizes * (len(totals) - 1)) if len(totals) > 1 else []
    found = [more[at : at + len(sizes)] for at in range(0, len(more), len(sizes))]
    found[here:here] = [rooms] if totals else []
    for place, (parts, total) in enumerate(zip(found, totals, strict=True)):
        out = lent if place == here else stored(job.shards.joined(parts), lent.itemsize)
        if total is not None:
            memory.write(total, out)
            continue
        for span in spans(len(out)):
            out[span] = 0
            job.progress()
    return [part for parts in found for part in parts]
