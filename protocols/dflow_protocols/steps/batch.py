"""The batch: what a manifest gives training, and how far its gradient is: leaves, the blocks over them, slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..claiming.deal import homes
from ..metrics import Whitening, whitening
from ..names import Block, NodeId, Partition, ShardRef, Slice, TaskKey
from ..pipeline.plan import Chain, Training
from ..ranges import gradient_sizes, shards_of
from ..wire.steps import Record, Seal
from ..work import Groups, LeafGroups
from .progress import kept_groups
from .reduction import cover, cut_leaves, slices
from .view import StepView, able_home


@dataclass(frozen=True, slots=True)
class Batch:
    """What a manifest gives training: who trains on what, and by what the sum is divided."""

    manifest: Seal
    training: Training
    leaves: tuple[LeafGroups, ...]
    data: dict[int, tuple[tuple[int, str, ShardRef], ...]]  # partition -> (partition, "stage.output", shard)
    divisor: int
    samples: int
    needed: frozenset[int]  # leaves that have groups
    whitening: Whitening | None  # of the step's advantages, where the training whitens them


def rounds_of(manifest: Seal, chain: Chain) -> int:
    """How many rounds of a chain a manifest has."""
    tasks = [*(record.task for record in manifest.entries), *(skip.task for skip in manifest.skipped)]
    own = [task.part.index for task in tasks if task.stage == chain.stages[0] and isinstance(task.part, Partition)]
    return chain.round_of(max(own, default=0)) + 1


def kept_by_round(manifest: Seal, chain: Chain) -> list[int]:
    """How many groups of each round that there may be a manifest has trained on."""
    kept = [0] * chain.rounds.most
    for record in manifest.entries:
        if isinstance(record.task.part, Partition) and record.task.stage == chain.rounds.counted:
            kept[chain.round_of(record.task.part.index)] += kept_groups((record,), chain.rounds.counted)
    return kept


def make_batch(manifest: Seal, training: Training) -> Batch:
    groups: dict[int, Groups] = {}
    data: dict[int, list[tuple[int, str, ShardRef]]] = {}
    for record in manifest.entries:
        assert isinstance(record.task.part, Partition), "a manifest lists partitions (admission.py)"
        partition = record.task.part.index
        if record.task.stage == training.groups_from:
            groups[partition] = record.groups
        for name, ref in record.outputs:
            read = f"{record.task.stage}.{name}"
            if read in training.reads:
                data.setdefault(partition, []).append((partition, read, ref))
    ordered = _share(training, [groups.get(partition, ()) for partition in range(max(groups, default=-1) + 1)])
    kept = [group for partition in ordered for group in partition]
    leaves = cut_leaves(ordered, training.leaves) if any(tokens for tokens, _ in kept) else ()
    return Batch(
        manifest,
        training,
        leaves,
        {partition: tuple(read) for partition, read in data.items()},
        training.divide_by(kept),
        sum(samples for _, samples in kept),
        frozenset(leaf.leaf for leaf in leaves),
        whitening_of(manifest, training),
    )


def whitening_of(manifest: Seal, training: Training) -> Whitening | None:
    """By all that the manifest lists: a mini-batch of a step is whitened as the step is."""
    of = (record.metrics for record in manifest.entries if record.task.stage == training.groups_from)
    return whitening(of) if training.whitens else None


def _share(training: Training, partitions: Sequence[Groups]) -> tuple[Groups, ...]:
    """What of these groups the update trains on: those of its mini-batch, and nothing of the others, nor of what is
    beyond the groups that are enough."""
    if training.minibatch.count == 1 and training.most_groups is None:
        return tuple(partitions)
    places = [(at, place) for at, groups in enumerate(partitions) for place, (tokens, _) in enumerate(groups) if tokens]
    mine = frozenset(training.share(places))
    return tuple(
        tuple(group if (at, place) in mine else (0, 0) for place, group in enumerate(groups))
        for at, groups in enumerate(partitions)
    )


def gradient_cover(view: StepView, batch: Batch) -> tuple[tuple[Block, Record], ...] | None:
    """A disjoint cover of all leaves by blocks whose records count, or None while leaves are missing."""
    if not batch.needed <= view.covered(batch.training, batch.manifest.id):
        return None
    inputs = (view.trains.id, batch.manifest.id)
    return cover(
        Block(0, batch.training.leaves),
        batch.needed,
        lambda block: view.step.gradient(batch.training.stage, block, inputs, view.counts),
    )


def leaf_homes(view: StepView, batch: Batch) -> dict[int, NodeId | None]:
    """The leaves of which no block counts, and where each is to be done."""
    training = batch.training
    covered = view.covered(training, batch.manifest.id)
    missing = sorted(batch.needed - covered)
    able = view.able((training.stage,))
    members = view.dealt_to((training.stage,), view.trainers, able)
    dealt = homes(range(training.leaves), members, able, view.capacity, in_runs=True) if missing else {}
    if not view.failures.known:
        return {leaf: dealt.get(leaf) for leaf in missing}
    units = {leaf: TaskKey(view.step.number, training.stage, Block.of_leaf(leaf)) for leaf in missing}
    return {leaf: able_home(unit, dealt.get(leaf), view.failures.nodes(unit), able) for leaf, unit in units.items()}


def gradient_slices(view: StepView, batch: Batch) -> tuple[Slice, ...]:
    """The slices of the step's gradient; none if every group was dropped."""
    training = batch.training
    sizes = gradient_sizes(shards_of(view.trains.state, f"params:{training.model}"), training.gradient_bytes)
    return slices(sum(sizes), training.leaves) if batch.leaves else ()


def slice_records(view: StepView, batch: Batch) -> tuple[Record | None, ...]:
    """Per slice, in order, the acceptable record that counts."""
    return view.reduced(batch.training, gradient_slices(view, batch), batch.manifest.id)
