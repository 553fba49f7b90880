"""Rounds in the books of a step: what is due, what is sealed, and what of it is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dflow_protocols.names import MANIFEST, NodeId, Partition, TaskKey
from dflow_protocols.pipeline.plan import StepPlan, plan
from dflow_protocols.run_state.origin import home_of
from dflow_protocols.simulator.toy import two_steps, with_rounds, with_updates
from dflow_protocols.steps.admission import is_seal
from dflow_protocols.steps.batch import kept_by_round, make_batch, rounds_of
from dflow_protocols.steps.roster import make_roster
from dflow_protocols.steps.sealing import carried_records
from dflow_protocols.wire.steps import LOST, Record, Seal, Skip
from dflow_protocols.work import Groups
from tests.unit.protocols.books import RUN, SPEC, ZERO, record, shard, version, who

PIPELINE = with_rounds(two_steps(), 4, 3)  # rounds of 5 partitions with 3 groups each
ALL: Groups = ((10, 4), (20, 4), (30, 4))
ONE: Groups = ((0, 0), (20, 4), (0, 0))
NONE: Groups = ((0, 0), (0, 0), (0, 0))
THIN = (ONE, NONE, ONE, NONE, ONE)  # a round that keeps three groups


def manifest(groups: Sequence[Groups], skipped: tuple[Skip, ...] = ()) -> Seal:
    """Of the first step, with these partitions but for those that are skipped."""
    entries = []
    for at, of_partition in enumerate(groups):
        read: tuple[str, ...] = (ZERO.id,)
        for stage, output in (("roll", "rollout"), ("score", "reward"), ("adv", "advantage")):
            ref = shard(f"{stage}/{at}")
            counted = of_partition if stage == "adv" else ()
            entries.append(Record(TaskKey(0, stage, Partition(at)), read, ((output, ref),), counted, ()))
            read = (*read, ref.id)
    without = {skip.task.part for skip in skipped}
    kept = tuple(record for record in entries if record.task.part not in without)
    return Seal(SPEC, 0, ZERO.id, ZERO.id, MANIFEST, 0, 0, kept, skipped)


def step() -> StepPlan:
    return plan(PIPELINE, 0)


def test_a_manifest_has_as_many_rounds_as_its_records_ask_for() -> None:
    """Any other number would train on other groups than an undisturbed node does."""
    rich = (ALL, ALL, NONE, NONE, NONE)
    assert is_seal(manifest(rich), step())
    assert not is_seal(manifest((*rich, *THIN)), step()), "the second was not due"
    assert is_seal(manifest((*THIN, *rich)), step())
    assert not is_seal(manifest(THIN), step()), "the second was due"
    nothing = (NONE,) * 5
    assert is_seal(manifest(nothing * 3), step()), "there are three at most"
    assert not is_seal(manifest(nothing * 2), step())
    assert not is_seal(manifest((*THIN, *rich[:4])), step()), "a round is whole"


def test_what_is_left_out_of_a_round_gives_nothing() -> None:
    skip = Skip(TaskKey(0, "roll", Partition(0)), "user", "same", "it raised", ())
    rich = (ALL, ALL, NONE, NONE, NONE)
    assert not is_seal(manifest(rich, (skip,)), step())
    assert is_seal(manifest((*rich, *THIN), (skip,)), step())


def test_what_was_lost_of_a_carried_round_asks_for_no_other() -> None:
    """Prompts that the first update was not trained on are no part of the step."""
    pipeline = with_rounds(with_updates(two_steps(), 2, 1), 4, 3)
    first, to = manifest((ALL, ALL, NONE, NONE, NONE)), version("v1", ZERO)
    lost = Skip(TaskKey(1, "roll", Partition(0)), LOST, "", "gone", ())
    kept = [record for record in carried_records(first, 1, to.id) if record.task.part != Partition(0)]
    later = replace(first, step=1, parent=to.id, previous=to.id, entries=tuple(kept), skipped=(lost,))
    assert is_seal(later, plan(pipeline, 1))


def test_the_first_groups_that_are_enough_are_trained_on() -> None:
    """In the order of partitions, whoever made them when; the divisor counts just these."""
    (training,) = step().trainings
    (chain, _) = step().chains
    seal = manifest((*THIN, NONE, ALL, ALL, NONE, NONE))
    assert (rounds_of(seal, chain), kept_by_round(seal, chain)) == (2, [3, 6, 0])
    batch = make_batch(seal, training)
    trained = [(p, at) for leaf in batch.leaves for p, first, end in leaf.pieces for at in range(first, end)]
    assert trained == [(0, 1), (2, 1), (4, 1), (6, 0)]
    assert (batch.divisor, batch.samples) == (3 * 20 + 10, 4 * 4)


def test_rounds_that_keep_nothing_train_nothing() -> None:
    (training,) = step().trainings
    batch = make_batch(manifest((NONE,) * 15), training)
    assert (batch.leaves, batch.samples) == ((), 0)


def test_every_round_is_dealt_to_all() -> None:
    """Dealt as one run, the first round would be a few nodes' alone."""
    nodes = [who(number) for number in (1, 2, 3)]
    roster = make_roster(0, 0, nodes, nodes)
    for index in range(3):
        homes: list[NodeId | None] = [
            home_of(RUN, record("roll", f"p{5 * index + at}", ["v"]).task, step(), roster) for at in range(5)
        ]
        assert sorted(map(homes.count, {*homes})) == [1, 2, 2]
