"""Duties: what this node should run now for its open step, derived from the books at every reconcile."""

from __future__ import annotations

from collections.abc import Sequence

from ..claiming.deal import deal, homes
from ..names import MANIFEST, Partition, ShardRef, TaskKey
from ..pipeline.plan import Chain
from ..ranges import pieces
from ..shards.holdings import Range
from ..work import ChainWork, SliceWork
from .batch import Batch, gradient_cover, gradient_slices, slice_records
from .blocks import block_duties
from .duty import CHAIN, EVALUATE, SLICE, Due, Duty
from .view import StepView, partition_homes


def open_duties(view: StepView, chains: Sequence[Chain], batch: Batch | None) -> Due:
    """What is due of these chains and, once there is a manifest, of training."""
    found = Due()
    for chain in chains:
        found.add(chain_duties(view, chain))
    if batch is not None:
        found.add(block_duties(view, batch))
        found.add(slice_duties(view, batch))
    return found


def chain_duties(view: StepView, chain: Chain) -> Due:
    """The unfinished partitions of a chain that are due here; what is done of them is not done again."""
    rank = CHAIN if chain.sealed_in == MANIFEST else EVALUATE
    found = Due()
    able = view.able(chain.stages)
    for unit, home in partition_homes(view, chain).items():
        due = found.rank(view, rank, unit, home, able)
        if due is None:
            continue
        assert isinstance(unit.part, Partition)
        p = unit.part.index
        before = view.progress_of(chain).done[p]
        inputs = tuple((f"{record.task.stage}.{name}", ref) for record in before for name, ref in record.outputs)
        reads = (view.source(chain).id, *(ref.id for record in before for ref in record.shards))
        params = view.params(view.source(chain), chain.models)
        call = chain.call(len(before))
        work = ChainWork(view.step.number, call, p, params, inputs, chain.together(call))
        needs = tuple((ref, None) for _, ref in (*params, *inputs))
        found.here.append(Duty(due, unit, work, needs, reads))
    return found


def slice_duties(view: StepView, batch: Batch) -> Due:
    """The slices that are due here, once a cover is known. They are dealt evenly, whatever slots a member has: what a
    slice takes is the network, and of that each host has one share."""
    stage, all_slices = batch.training.stage, gradient_slices(view, batch)
    done = slice_records(view, batch)
    missing = [chunks for chunks, record in zip(all_slices, done, strict=True) if record is None]
    cover_of_all, found = gradient_cover(view, batch) if missing else None, Due()
    if cover_of_all is None:
        return found
    able = view.able((stage,))
    dealt = homes(all_slices, view.dealt_to(view.trainers, able), able, missing)
    for chunks in missing:
        unit = TaskKey(view.step.number, stage, chunks)
        due = found.rank(view, SLICE, unit, dealt.get(chunks), able)
        if due is None:
            continue
        blocks = tuple(
            (block.first, block.end, pieces(record.shards, chunks.first, chunks.end)) for block, record in cover_of_all
        )
        leaves = batch.training.leaves
        work = SliceWork(view.step.number, stage, chunks.first, chunks.end, leaves, blocks, batch.divisor)
        needs = tuple((ref, (low, high)) for _, _, parts in blocks for ref, low, high in parts)
        reads = (view.trains.id, batch.manifest.id)  # not the blocks: which there are depends on who took part
        found.here.append(Duty(due, unit, work, needs, reads))
    return found


def slice_pieces(view: StepView, batch: Batch) -> list[tuple[ShardRef, Range]]:
    """What this node will need for the slices dealt to it, of the blocks that are done so far: to be brought while
    others are still at work."""
    borders = gradient_slices(view, batch)
    able = view.able((batch.training.stage,))
    dealt = deal(borders, [node for node in view.dealt_to(view.trainers, able) if node in able])
    done = zip(borders, slice_records(view, batch), strict=True)
    mine = [chunks for chunks, record in done if record is None and dealt.get(chunks) == view.me]
    inputs = (view.trains.id, batch.manifest.id)
    blocks = view.step.blocks(batch.training.stage, inputs, view.counts)
    return [
        (ref, (low, high))
        for record in blocks
        for chunks in mine
        for ref, low, high in pieces(record.shards, chunks.first, chunks.end)
    ]
