"""What is checked of a step's work goes by the training that it is of, and by all that read its partitions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dflow_protocols.names import UPDATE, NodeId
from dflow_protocols.pipeline.plan import StepPlan, plan
from dflow_protocols.run_state.origin import home_of
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.steps.admission import is_failure, is_record, is_seal, is_unit
from dflow_protocols.steps.roster import make_roster
from dflow_protocols.wire.steps import Failure, Record, Seal
from tests.unit.protocols.books import RUN, SPEC, ZERO, finished_partition, record, shard, who


def two_trainings() -> StepPlan:
    """The toy pipeline's first step, and a critic that learns from the same partitions, with half as many leaves."""
    step = plan(two_steps(), 0)
    (learn,), (roll, held) = step.trainings, step.chains
    reads = (*learn.reads, "roll.value")
    critic = replace(learn, stage="critic", leaves=learn.leaves // 2, reads=reads)
    return replace(step, chains=(replace(roll, trained=reads), held), trainings=(learn, critic))


@pytest.mark.parametrize("stage", ["learn", "critic"])
def test_each_has_its_leaves_and_slices(stage: str) -> None:
    step = two_trainings()
    training = step.training_of(stage)
    assert training is not None
    for part, is_one in ((f"b0-{training.leaves}", True), (f"b0-{2 * training.leaves}", False), ("s3-4", True)):
        assert is_unit(record(stage, part, ["v"]).task, step) == is_one


@pytest.mark.parametrize(("stage", "can_be"), [("learn", True), ("critic", True), ("roll", False)])
def test_each_may_fail_to_be_applied(stage: str, can_be: bool) -> None:
    failure = Failure(record(stage, "apply", ["v"]).task, who(1), 1, "error", "", "out of memory")
    assert is_failure(failure, two_trainings()) == can_be


def test_leaves_are_dealt_as_many_as_their_training_has() -> None:
    step, nodes = two_trainings(), [who(number) for number in (1, 2, 3)]
    roster = make_roster(0, 0, nodes, nodes)
    for training in step.trainings:
        homes: list[NodeId | None] = [
            home_of(RUN, record(training.stage, f"b{leaf}-{leaf + 1}", ["v"]).task, step, roster)
            for leaf in range(training.leaves)
        ]
        assert None not in homes
        assert max(map(homes.count, homes)) - min(map(homes.count, homes)) <= 1


def test_a_partition_gives_what_either_reads() -> None:
    roll, _, adv = finished_partition(0)
    step = two_trainings()
    assert is_record(adv, step)
    assert not is_record(roll, step)
    with_value = replace(roll, outputs=(*roll.outputs, ("value", shard("values"))))
    assert is_record(with_value, step)
    assert is_record(roll, plan(two_steps(), 0))


def test_an_update_is_of_one_training() -> None:
    """Its slices are those of one gradient: updates of a step follow each other, each with a seal of its own."""
    step, manifest = two_trainings(), shard("manifest").id

    def update(*stages: str) -> Seal:
        slices: list[Record] = [
            record(stage, f"s{at}-{at + 1}", [ZERO.id, manifest], shard(f"slice {at}"))
            for at, stage in enumerate(stages)
        ]
        evaluated = [record("held", f"p{at}", [ZERO.id], shard(f"e{at}")) for at in (0, 1)]
        return Seal(SPEC, 0, ZERO.id, manifest, UPDATE, 0, 8, (*slices, *evaluated))

    assert is_seal(update("learn", "learn"), step)
    assert is_seal(update("critic", "critic"), step)
    assert not is_seal(update("learn", "critic"), step)
