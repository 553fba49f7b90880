"""What a step was trained on, carried to the next version, and the mini-batches that are cut of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from dflow_protocols.names import MANIFEST, Block, Partition, TaskKey
from dflow_protocols.pipeline.plan import plan
from dflow_protocols.simulator.toy import several_updates
from dflow_protocols.steps.admission import is_record, is_seal
from dflow_protocols.steps.batch import make_batch
from dflow_protocols.steps.sealing import carried_records, carried_skips
from dflow_protocols.wire.steps import LOST, Record, Seal, Skip
from tests.unit.protocols.books import SPEC, ZERO, shard, version

SEVERAL = several_updates()
GROUPS = ((10, 4), (0, 0), (30, 4))


def manifest(skipped: tuple[Skip, ...] = ()) -> Seal:
    """Of the first step, with all its partitions but those."""
    entries = []
    for at in range(5):
        read: tuple[str, ...] = (ZERO.id,)
        for stage, output in (("roll", "rollout"), ("score", "reward"), ("adv", "advantage")):
            ref = shard(f"{stage}/{at}")
            groups = GROUPS if stage == "adv" else ()
            entries.append(Record(TaskKey(0, stage, Partition(at)), read, ((output, ref),), groups, ()))
            read = (*read, ref.id)
    without = {skip.task.part for skip in skipped}
    kept = tuple(record for record in entries if record.task.part not in without)
    return Seal(SPEC, 0, ZERO.id, ZERO.id, MANIFEST, 0, 0, kept, skipped)


def carried(seal: Seal, number: int) -> Seal:
    to = version(f"v{number}", ZERO)
    entries, skips = tuple(carried_records(seal, number, to.id)), tuple(carried_skips(seal, number))
    return replace(seal, step=number, parent=to.id, previous=to.id, entries=entries, skipped=skips)


def test_a_carried_manifest_is_one_of_its_own_step() -> None:
    """Its records name the version that they are carried to, and the outputs that they had: nothing else is asked of
    it than of any manifest."""
    first, later = manifest(), carried(manifest(), 3)
    assert is_seal(first, plan(SEVERAL, 0))
    assert is_seal(later, plan(SEVERAL, 3))
    assert not is_seal(replace(later, entries=first.entries), plan(SEVERAL, 3))
    assert [record.outputs for record in later.entries] == [record.outputs for record in first.entries]
    assert all(record.inputs[0] == later.parent for record in later.entries)
    assert all(is_record(record, plan(SEVERAL, 3)) for record in later.entries)


def test_carrying_on_what_was_carried_gives_what_carrying_at_once_does() -> None:
    """So whoever comes from an earlier version of the step makes the same records."""
    once, twice = carried(manifest(), 4), carried(carried(manifest(), 3), 4)
    assert once.id == twice.id


def test_what_a_manifest_lacks_is_lacked_by_those_after_it() -> None:
    skip = Skip(TaskKey(0, "roll", Partition(2)), LOST, "", "gone", ())
    later = carried(manifest((skip,)), 3)
    assert [each.task for each in later.skipped] == [TaskKey(3, "roll", Partition(2))]
    assert is_seal(later, plan(SEVERAL, 3))


def test_the_mini_batches_of_an_epoch_train_on_each_kept_group_once() -> None:
    """And each is divided by what it has of them."""
    trained, divisors = list[tuple[int, int]](), []
    for number in (1, 2):
        step = plan(SEVERAL, number)
        (training,) = step.trainings
        batch = make_batch(carried(manifest(), number), training)
        for leaf in batch.leaves:
            trained += [(partition, place) for partition, first, end in leaf.pieces for place in range(first, end)]
        divisors.append(batch.divisor)
        assert batch.samples == 4 * 5
        assert batch.needed <= set(Block(0, training.leaves).leaves)
    assert sorted(trained) == [(partition, place) for partition in range(5) for place in (0, 2)]
    assert sum(divisors) == 5 * (10 + 30)


def test_epochs_cut_their_mini_batches_otherwise() -> None:
    batches = [make_batch(carried(manifest(), number), plan(SEVERAL, number).trainings[0]) for number in range(1, 5)]
    assert [batch.training.epoch for batch in batches] == [0, 0, 1, 1]
    pieces = [tuple(leaf.pieces for leaf in batch.leaves) for batch in batches]
    assert len(set(pieces)) == 4
    assert [b.training.update - a.training.update for a, b in pairwise(batches)] == [1, 1, 1]
