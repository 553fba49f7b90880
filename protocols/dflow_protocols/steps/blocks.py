"""The blocks of one node: its leaves, cut by its slots, summed here as far as the tree allows, told as few blocks.

A node with k slots runs k blocks at once, and each ends in a gradient of its own. Others fetch from every block that
they are told of, so blocks of slots stay here (`Step.kept_back`) until they are summed to what one slot alone would
have made; then what leaves a host does not depend on how many slots it has. A node that trains alone tells each at
once: nobody fetches any. Losing what was kept back costs time only: for all others those leaves are unfinished still.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .. import metrics
from ..names import Block, NodeId, ShardRef, TaskKey
from ..shards.holdings import Range
from ..wire.steps import Record
from ..work import BlockWork, SumWork
from .batch import Batch, leaf_homes
from .duty import BLOCK, SUM, Due, Duty
from .patience import Wait
from .reduction import aligned_blocks, cover
from .view import StepView, params_of


def block_duties(view: StepView, batch: Batch) -> Due:
    """The blocks of leaves that are due here: sums of what slots made, then as many blocks as keep every slot busy."""
    stage, found = batch.training.stage, Due()
    home = leaf_homes(view, batch)
    if not home:
        return found
    claimed = view.claimed_leaves(stage)
    mine, made = _own_leaves(view, batch, home, claimed), _made(view, batch)
    running = {leaf for unit in view.running if unit.stage == stage for leaf in unit.leaves}
    begun = running | {leaf for block in made for leaf in block.leaves}
    for block in aligned_blocks(mine):
        parts = cover(block, frozenset(block.leaves), made.get)
        if parts is not None and len(parts) > 1 and running.isdisjoint(block.leaves):
            found.here.append(_sum_duty(view, batch, block, parts))
    for leaves in _cut([leaf for leaf in mine if leaf not in begun], view.slots):
        found.here += [_block_duty(view, batch, BLOCK, block) for block in aligned_blocks(leaves)]
    able = view.able((stage,))
    taken = claimed | begun | frozenset(mine)
    for leaf in _watched(view, stage, home, able):
        if leaf in taken:
            continue
        due = found.orphan_rank(view, BLOCK, _single(view, stage, leaf), home[leaf], able)
        if due is not None:
            found.here.append(_block_duty(view, batch, due, Block.of_leaf(leaf)))
    return found


def _watched(view: StepView, stage: str, home: Mapping[int, NodeId | None], able: frozenset[NodeId]) -> Collection[int]:
    """Of these leaves those whose homes this node may have to wait for: all, if it is idle and one of the homes shows
    no claim; else those that it waits for already, as it may have to no longer."""
    if view.is_idle and view.me in able and any(node not in view.at_work for node in home.values()):
        return home.keys()
    waits = view.step.patience.units(Wait.HOME)
    return sorted(leaf for unit in waits if unit.stage == stage for leaf in unit.leaves if leaf in home)


@dataclass(frozen=True, slots=True)
class KeptBack:
    """What is to become of blocks that are kept back on their node."""

    tell: list[Record]  # others are to hear of these now
    let_go: list[TaskKey]  # these need not be kept back any more: they are told, or useless


def kept_back(view: StepView, batch: Batch, all_of_it: bool = False) -> KeptBack:
    """Others are to hear of the blocks that are summed as far as the leaves of this node allow, and of those that can
    no longer be. With `all_of_it`, or where nobody else trains: of all. What somebody else's block has made useless
    goes, too, and is told to nobody."""
    made = _made(view, batch)
    if not made:
        return KeptBack([], [])
    home = leaf_homes(view, batch)
    others = [node for node in view.trainers if node in view.on_duty and node != view.me]
    told = {block: record for block, record in made.items() if not home.keys().isdisjoint(block.leaves)}
    if others and not all_of_it:
        whole = list(aligned_blocks(_own_leaves(view, batch, home, view.claimed_leaves(batch.training.stage))))
        told = {block: record for block, record in told.items() if not any(block.is_inside(each) for each in whole)}
    elif any(block.is_inside(other) for block in told for other in told):
        told = {block: record for block, record in told.items() if not any(block.is_inside(each) for each in told)}
    over = [
        record.task
        for block, record in made.items()
        if block in told or home.keys().isdisjoint(block.leaves) or any(block.is_inside(each) for each in told)
    ]
    return KeptBack(list(told.values()), over)


def _own_leaves(view: StepView, batch: Batch, home: Mapping[int, NodeId | None], claimed: Collection[int]) -> list[int]:
    """The unfinished leaves that are this node's to sum: dealt to it or taken from others, and nobody else's now."""
    stage = batch.training.stage
    borrowed = {leaf for unit in view.loans.borrowed if unit.stage == stage for leaf in unit.leaves}
    return [leaf for leaf, node in home.items() if leaf not in claimed and (node == view.me or leaf in borrowed)]


def _made(view: StepView, batch: Batch) -> dict[Block, Record]:
    """The blocks that are kept back here and can still be used, by their leaves."""
    reads = (view.trains.id, batch.manifest.id)
    return {
        record.task.part: record
        for record in view.step.kept_back.values()
        if isinstance(record.task.part, Block) and record.inputs == reads and view.counts(record)
    }


def _cut(leaves: Sequence[int], slots: int) -> Iterator[Sequence[int]]:
    """Contiguous runs, one a slot, whose lengths differ by at most one. Looked at again whenever a slot is free, what
    remains is cut ever finer, so that slots of unequal speed end together."""
    share, longer = divmod(len(leaves), slots)
    at = 0
    for place in range(slots):
        end = at + share + (place < longer)
        if end > at:
            yield leaves[at:end]
        at = end


def _block_duty(view: StepView, batch: Batch, rank: int, block: Block) -> Duty:
    """An aligned block of leaves, to be summed by one slot."""
    leaves = tuple(leaf for leaf in batch.leaves if leaf.leaf in block.leaves)
    partitions = sorted({piece[0] for leaf in leaves for piece in leaf.pieces})
    inputs = tuple(entry for partition in partitions for entry in batch.data[partition])
    stage = batch.training.stage
    model = batch.training.model
    params = params_of(view.trains.state, [model], [(model, model)])
    weights = view.coefficients(view.trains, (stage,))
    work = BlockWork(view.step.number, stage, block.first, block.end, leaves, inputs, params, batch.whitening, weights)
    needs: list[tuple[ShardRef, Range | None]] = [(ref, None) for _, ref in params]
    needs += [(ref, None) for _, _, ref in inputs]
    unit = TaskKey(view.step.number, stage, block)
    return Duty(rank, unit, work, tuple(needs), (view.trains.id, batch.manifest.id))


def _sum_duty(view: StepView, batch: Batch, block: Block, parts: Sequence[tuple[Block, Record]]) -> Duty:
    stage = batch.training.stage
    blocks = tuple((part.first, part.end, record.shards) for part, record in parts)
    sums = metrics.merge(record.metrics for _, record in parts)
    work = SumWork(view.step.number, stage, block.first, block.end, blocks, sums)
    unit = TaskKey(view.step.number, stage, block)
    needs = tuple((ref, None) for _, record in parts for ref in record.shards)
    return Duty(SUM, unit, work, needs, (view.trains.id, batch.manifest.id))


def _single(view: StepView, stage: str, leaf: int) -> TaskKey:
    return TaskKey(view.step.number, stage, Block.of_leaf(leaf))
