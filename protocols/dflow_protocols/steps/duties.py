"""Duties: what this node should run now for its open step, derived from the books; and what waits at other members."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..claiming.deal import homes
from ..names import NodeId, ShardRef, Slice, TaskKey
from ..pipeline.plan import Chain
from ..ranges import pieces
from ..shards.holdings import Range
from ..work import SliceWork
from .batch import Batch, gradient_cover, gradient_slices, leaf_homes, slice_records
from .blocks import block_duties
from .duty import SLICE, Due, Duty
from .partitions import OpenPartitions
from .view import StepView, partition_homes


class OpenDuties:
    """Of an open step of a run at one node, kept from one reconcile to the next as far as partitions go."""

    def __init__(self) -> None:
        self._of: tuple[object, ...] = ()  # what they are kept of
        self._partitions: dict[str, OpenPartitions] = {}  # by a chain's first stage

    def due(self, view: StepView, chains: Sequence[Chain], batch: Batch | None) -> Due:
        """What is due of these chains and, once there is a manifest, of training."""
        of = view.step, view.kept, view.reads, view.trains
        if len(of) != len(self._of) or any(now is not before for now, before in zip(of, self._of, strict=True)):
            self._of, self._partitions = of, {}
        found = Due()
        for chain in chains:
            if chain.stages[0] not in self._partitions:
                self._partitions[chain.stages[0]] = OpenPartitions(chain)
            found.add(self._partitions[chain.stages[0]].due(view))
        if batch is not None:
            found.add(block_duties(view, batch))
            found.add(slice_duties(view, batch))
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
    able, dealt = view.able((stage,)), _dealt_slices(view, batch)
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


def slice_homes(view: StepView, batch: Batch) -> list[NodeId]:
    """Who is to sum the step's slices."""
    return list(dict.fromkeys(_dealt_slices(view, batch).values()))


def _dealt_slices(view: StepView, batch: Batch) -> dict[Slice, NodeId]:
    able = view.able((batch.training.stage,))
    members = view.dealt_to((batch.training.stage,), view.reducers, able)
    return homes(gradient_slices(view, batch), members, able)


def slice_pieces(view: StepView, batch: Batch) -> list[tuple[ShardRef, Range]]:
    """What this node will need for the slices dealt to it, of the blocks that are done so far: to be brought while
    others are still at work."""
    dealt, done = _dealt_slices(view, batch), zip(gradient_slices(view, batch), slice_records(view, batch), strict=True)
    mine = [chunks for chunks, record in done if record is None and dealt.get(chunks) == view.me]
    if not mine:
        return []
    inputs = (view.trains.id, batch.manifest.id)
    blocks = view.step.blocks(batch.training.stage, inputs, view.counts)
    return [
        (ref, (low, high))
        for record in blocks
        for chunks in mine
        for ref, low, high in pieces(record.shards, chunks.first, chunks.end)
    ]


def known_backlog(view: StepView, chains: tuple[Chain, ...], batch: Batch | None) -> Counter[NodeId]:
    """Unfinished units by home, without those that somebody claims, as far as this node's books tell. Too high where
    the books lack records: then the member's own word is right."""
    found: Counter[NodeId] = Counter()
    for chain in chains:
        for unit, home in partition_homes(view, chain).items():
            if home is not None and not view.step.claimants(view.now, unit):
                found[home] += 1
    if batch is not None:
        taken = view.claimed_leaves(batch.training.stage)
        for leaf, home in leaf_homes(view, batch).items():
            if home is not None and leaf not in taken:
                found[home] += 1
    return found
