"""What must hold of every seal that a node tells others: it lists what is there, and that belongs together."""

from __future__ import annotations

from collections.abc import Mapping

from ..names import MANIFEST, Partition, RunId, SealId, Slice
from ..pipeline.plan import Chain, Training
from ..wire.frame import Frame
from ..wire.steps import Record, Seal, SealPut
from .invariants import check_linked, check_whole
from .model.provenance import SliceSum
from .model.work import Engines
from .parameters import check_staleness


class SealCheck:
    """Looks at every seal once: its records tell the truth, belong together, and are all there."""

    def __init__(self) -> None:
        self._seen: dict[SealId, Seal] = {}

    def check(self, seal: Seal, engines: Engines) -> None:
        """Raises AssertionError."""
        if seal.id in self._seen:
            return
        self._seen[seal.id] = seal
        for record in seal.entries:
            assert record.task.step == seal.step, f"{record.task} lies in a seal of step {seal.step}"
        if seal.kind == MANIFEST:
            self._check_manifest(seal, engines)
        else:
            self._check_update(seal, engines)

    def _check_manifest(self, seal: Seal, engines: Engines) -> None:
        chains = [chain for chain in engines.plan(seal.step).chains if chain.sealed_in == MANIFEST]
        ends = {chain.stages[0]: _end(chain, seal) for chain in chains}
        due = {(s, Partition(p)) for chain in chains for s in chain.stages for p in range(ends[chain.stages[0]])}
        without = {(skip.task.stage, skip.task.part) for skip in seal.skipped}
        due -= {(s, part) for chain in chains for first, part in without if first in chain.stages for s in chain.stages}
        listed = [(record.task.stage, record.task.part) for record in seal.entries]
        is_whole = len(listed) == len(due) and set(listed) == due
        assert is_whole, f"the manifest of step {seal.step} lists {len(listed)} of {len(due)}"
        for chain in chains:
            if not engines.plan(seal.step).is_carried:
                _check_rounds(seal, chain, ends[chain.stages[0]])
            for partition in range(ends[chain.stages[0]]):
                if (chain.stages[0], Partition(partition)) in without:
                    continue
                mine = [r for r in seal.entries if r.task.part == Partition(partition) and r.task.stage in chain.stages]
                made = [ref.id for record in mine for ref in record.shards]
                outputs = {shard: engines.ledger.partition_output(shard, partition) for shard in made}
                for record in mine:
                    _check_record(engines, record)
                check_linked(engines, outputs, seal.step, partition)
        made = [ref.id for record in seal.entries for ref in record.shards]
        versions = {engines.ledger.partition_output(shard, 0).params for shard in made} - {()}
        is_of_one = len(versions) <= 1 or engines.pipeline.max_staleness
        assert is_of_one, f"the manifest of step {seal.step} mixes {len(versions)} versions"
        for params in sorted(versions) if engines.pipeline.max_staleness else ():
            check_staleness(engines, params, seal.step)

    def _check_update(self, seal: Seal, engines: Engines) -> None:
        for training in engines.plan(seal.step).trainings:
            self._check_gradient(seal, training, engines)

    def _check_gradient(self, seal: Seal, training: Training, engines: Engines) -> None:
        records = [record for record in seal.entries if record.task.stage == training.stage]
        slices: list[SliceSum] = []
        for record in records:
            assert isinstance(record.task.part, Slice), f"{record.task} lies in an update seal"
            slices.append(engines.ledger.slice(record.shards[0].id, seal.step, record.task.part.first))
        check_whole(sorted(slices, key=lambda piece: piece.first), seal.step)
        manifest = self._seen.get(SealId(seal.previous))
        if manifest is None:
            return
        groups = {
            (record.task.part.index, place): group
            for record in manifest.entries
            if record.task.stage == training.groups_from and isinstance(record.task.part, Partition)
            for place, group in enumerate(record.groups)
            if group[0]
        }
        due = set(training.minibatch.of(sorted(groups)[: training.most_groups]))
        total = training.divide_by(groups[each] for each in due) if due else 0
        summed = [piece for leaf in slices[0].sums for piece in leaf.pieces] if slices else []
        done = {(partition, place) for partition, first, end in summed for place in range(first, end)}
        assert done & groups.keys() == due, f"step {seal.step} trains on groups {sorted(done)}, due are {sorted(due)}"
        divisor = slices[0].divisor if slices else 0
        assert divisor == total, f"step {seal.step}: the divisor is {divisor}, sealed are {total}"
        sealed = {ref.id for record in manifest.entries for ref in record.shards}
        read = {shard for piece in slices for leaf in piece.sums for _, _, shard in leaf.inputs}
        assert read <= sealed, f"step {seal.step}: the update was computed from {len(read - sealed)} unsealed shards"


def _end(chain: Chain, seal: Seal) -> int:
    """The first partition of a chain that is in none of the rounds that a manifest has."""
    tasks = [*(record.task for record in seal.entries), *(skip.task for skip in seal.skipped)]
    last = max(t.part.index for t in tasks if t.stage == chain.stages[0] and isinstance(t.part, Partition))
    each = chain.partitions // chain.rounds.most
    return (last // each + 1) * each


def _check_rounds(seal: Seal, chain: Chain, end: int) -> None:
    """Before the last round too little was kept, and with it there is enough, or it is the last that there may be."""
    each, kept = chain.partitions // chain.rounds.most, [0] * chain.partitions
    for record in seal.entries:
        if record.task.stage == chain.rounds.counted and isinstance(record.task.part, Partition):
            kept[record.task.part.index] = sum(1 for tokens, _ in record.groups if tokens)
    before, whole, until = sum(kept[: end - each]), sum(kept[:end]), chain.rounds.until
    where = f"the manifest of step {seal.step} has {end // each} rounds that keep {whole} groups, of {until} due"
    assert end == each or before < until, f"{where}, and the rounds before kept {before}"
    assert end == chain.partitions or whole >= until, where


def check_seals(seals: SealCheck, engines: Mapping[RunId, Engines], frame: Frame) -> None:
    """The seals that a node tells others are true. Raises AssertionError."""
    for message in frame.messages:
        if isinstance(message, SealPut):
            seals.check(message.seal, engines[message.run])


def _check_record(engines: Engines, record: Record) -> None:
    """It names what its outputs were really made from, and counts what is really in them."""
    ledger = engines.ledger
    assert isinstance(record.task.part, Partition), f"{record.task} lies in a manifest"
    for ref in record.shards:
        made = ledger.partition_output(ref.id, record.task.part.index)
        truth = (made.step, made.stage, Partition(made.partition))
        assert truth == (engines.first(record.task.step), record.task.stage, record.task.part), (
            f"{record.task} names shards of {truth}"
        )
        assert record.groups == made.groups, f"{record.task} counts other groups than its outputs have"
        read = {name for name in record.inputs if name in ledger.entries} - set(made.params)
        assert read <= set(made.inputs), f"{record.task} names inputs that its outputs were not made from"
