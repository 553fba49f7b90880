"""plan(): every node derives the same step from the same spec, and nothing of a run is lost or done twice."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dflow_protocols.names import Once, Partition, TaskKey
from dflow_protocols.pipeline import Chain, Pipeline, StepPlan, Training, partition_groups, plan, tasks
from dflow_protocols.simulator.toy import actor_critic, with_async, with_lag, with_old_policy
from tests.unit.protocols.written_specs import example, stage

READ = ("roll.rollout", "adv.advantage")
ROLLOUT = Chain(("roll", "score", "adv"), 12, 96, ("policy",), "manifest", trained=READ, counted=("adv",))
EVALUATION = Chain(("heldout",), partitions=8, groups=1000, models=("policy",), sealed_in="update")


def test_a_warm_up_step_makes_batches_and_trains_on_them() -> None:
    """Supervised stages need no parameters to make a batch, so partitions may start before the version is here."""
    assert plan(Pipeline.from_dict(example()), 49) == StepPlan(
        49,
        49,
        (Chain(("warm",), 4, 128, (), "manifest", trained=("warm.batch",), counted=("warm",)),),
        (Training("warm", "policy", 4, ("warm.batch",), "warm", "tokens", 128, 49, 50, False, 4),),
        49,
        49,
    )


def test_a_grpo_step_runs_one_chain_a_partition_and_one_update() -> None:
    """Rollout, reward and advantage of a partition stay together; leaves read what they need of them."""
    assert plan(Pipeline.from_dict(example()), 51) == StepPlan(
        51,
        51,
        (ROLLOUT,),
        (Training("learn", "policy", 8, READ, "adv", "tokens", 96 * 8 * 6, 1, 180, True, 4),),
        51,
        51,
    )


def test_the_last_evaluation_is_of_the_final_version() -> None:
    """What the user gets is what was measured, whatever `every` says."""
    pipeline = Pipeline.from_dict(example())
    evaluated = [step for step in range(231) if EVALUATION in plan(pipeline, step).chains]
    assert evaluated == [50, 70, 90, 110, 130, 150, 170, 190, 210, 230]
    assert plan(pipeline, 230) == StepPlan(230, 230, (EVALUATION,), (), 230, 230)


def test_what_rollouts_may_be_of_is_counted_in_steps_of_the_pipeline() -> None:
    """However many versions a step makes: all updates of one train on what the version sampled that an earlier one
    began with, or any version from that one's first on."""
    behind = with_lag(actor_critic(), 1)  # its steps begin with versions 0, 4, 6 and 10
    assert [plan(behind, number).samples_from for number in range(11)] == [0] * 6 + [4] * 4 + [6]
    loose = with_async(with_old_policy(actor_critic()), 1)
    assert [plan(loose, number).samples_from for number in range(11)] == [0] * 4 + [4] * 2 + [6] * 4 + [10]
    assert [plan(loose, number).oldest for number in range(11)] == [0] * 6 + [4] * 4 + [6]


@pytest.mark.parametrize("lag", [0, 1, 2, 8])
def test_each_step_has_a_roster_before_it_opens(lag: int) -> None:
    """Those that are open at the submit have it from there; of all others each comes with one update: as a step opens
    ahead, or as the update before it is made."""
    pipeline = with_lag(actor_critic(), lag)
    made: dict[int, int] = {}
    for number in range(pipeline.schedule.versions):
        opened = pipeline.rostered_with(number)
        if opened is not None:
            assert made.setdefault(opened, number) == number
    first = {0, *pipeline.ahead_of(0)}
    assert made.keys() | first == set(range(pipeline.schedule.versions + 1))
    assert made.keys().isdisjoint(first)
    for number in range(pipeline.schedule.versions + 1):
        assert all(made.get(ahead, -1) < number for ahead in (number, *pipeline.ahead_of(number)))


@pytest.mark.parametrize("step", [-1, 231])
def test_a_step_outside_the_run_has_no_plan(step: int) -> None:
    with pytest.raises(ValueError, match="of 230"):
        plan(Pipeline.from_dict(example()), step)


def test_a_reference_model_is_scored_in_the_chain_and_read_by_the_leaves() -> None:
    """With a KL term the frozen model's log-probabilities are made where the rollout lies. It is not part of a
    version, so no chain asks a version for it."""
    spec = example()
    spec["models"]["reference"] = {"path": "start"}
    spec["stages"].insert(2, {"id": "ref", "op": "logprob", "model": "reference"})
    stage(spec, "learn")["config"]["loss"]["kl"] = 0.01
    planned = plan(Pipeline.from_dict(spec), 60)
    (chain,), (training,) = planned.chains, planned.trainings
    assert (chain.stages, chain.models, chain.cuts) == (("roll", "ref", "score", "adv"), ("policy",), (1,))
    assert training.reads == chain.trained == (*READ, "ref.logprob")


def test_a_chain_is_one_call_until_a_stage_has_another_engine() -> None:
    """It is dealt and sealed as one chain all the same; what is done of it already is not asked for again."""
    spec = example()
    stage(spec, "score")["engine"] = "emulated"
    (chain,) = plan(Pipeline.from_dict(spec), 60).chains
    assert chain.stages == ROLLOUT.stages
    assert [chain.call(done) for done in range(3)] == [("roll",), ("score",), ("adv",)]
    assert [ROLLOUT.call(done) for done in range(3)] == [("roll", "score", "adv"), ("score", "adv"), ("adv",)]
    stage(spec, "adv")["engine"] = "emulated"
    (chain,) = plan(Pipeline.from_dict(spec), 60).chains
    assert [chain.call(done) for done in range(3)] == [("roll",), ("score", "adv"), ("adv",)]


def test_what_was_sampled_is_told_before_another_pass_through_a_model() -> None:
    """Samples are long and dear: they get their second copy while a reference scores them."""
    spec = example()
    spec["models"]["reference"] = {"path": "start"}
    spec["stages"].insert(2, {"id": "ref", "op": "logprob", "model": "reference"})
    (chain,) = plan(Pipeline.from_dict(spec), 60).chains
    assert [chain.call(done) for done in range(3)] == [("roll",), ("ref", "score", "adv"), ("score", "adv")]


def test_a_step_of_several_updates_is_as_many_plans() -> None:
    """The first has all that is run and evaluated; the others go on with what training reads of that."""
    spec = example()
    stage(spec, "learn")["config"].update(epochs=2, minibatches=3)
    pipeline = Pipeline.from_dict(spec)
    first, *others = (plan(pipeline, number) for number in range(50, 56))
    assert pipeline.schedule.versions == 50 + 6 * 180
    assert first.chains == (ROLLOUT, EVALUATION)
    assert not first.is_carried
    assert all(other.chains == (ROLLOUT,) and other.is_carried for other in others)
    trainings = [training for each in (first, *others) for training in each.trainings]
    parts = [(each.epoch, each.minibatch.index, each.minibatch.count) for each in trainings]
    assert parts == [(epoch, part, 3) for epoch in range(2) for part in range(3)]
    assert {each.updates for each in trainings} == {6 * 180}
    assert plan(pipeline, 56).trainings[0].update == 6
    assert not plan(pipeline, pipeline.schedule.versions).is_carried


def test_stages_that_train_in_one_step_do_so_in_the_pipelines_order() -> None:
    """Each in turn, on what the same step gave."""
    spec = example()
    stage(spec, "warm")["when"] = "step < 52"
    pipeline = Pipeline.from_dict(spec)
    plans = [plan(pipeline, number) for number in range(50, 55)]
    assert [training.stage for each in plans for training in each.trainings] == ["warm", "learn"] * 2 + ["learn"]
    assert {chain.stages[0] for chain in plans[0].chains} == {"warm", "roll", "heldout"}
    assert {chain.stages[0] for chain in plans[1].chains} == {"warm", "roll"}
    assert {key.stage for key in tasks(plans[1])} == {"learn"}  # what is carried is not run again


def test_a_sequence_mean_divides_by_samples() -> None:
    spec = example()
    stage(spec, "learn")["config"]["loss"]["mean"] = "sequence"
    (training,) = plan(Pipeline.from_dict(spec), 60).trainings
    assert training.divisor == "samples"


def test_a_users_own_stage_joins_the_chain_in_order() -> None:
    """Outputs are known by their name, whoever writes them; `after` orders stages that do not read each other."""
    spec = example()
    spec["stages"].insert(
        0, {"id": "log", "op": "mine:log", "reads": ["roll.rollout"], "writes": ["logged"], "after": ["adv"]}
    )
    stage(spec, "score").update(op="mine:score", reads=["rollout"], writes=["reward"], config={"depth": 3})
    chain = plan(Pipeline.from_dict(spec), 60).chains[0]
    assert chain.stages == ("roll", "score", "adv", "log")


def test_rollouts_that_nobody_trains_on_do_not_hold_training_up() -> None:
    spec = example()
    extra = {
        "id": "probe",
        "op": "generate",
        "model": "policy",
        "every": 7,
        "config": {"data": "words", "prompts": 4, "max_tokens": 4},
    }
    spec["stages"].append(extra)
    chains = plan(Pipeline.from_dict(spec), 63).chains
    assert [(chain.stages[0], chain.sealed_in) for chain in chains] == [("roll", "manifest"), ("probe", "update")]


@given(steps=st.integers(1, 60), warmup=st.integers(0, 60), every=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_updates_of_a_stage_are_numbered_without_gaps(steps: int, warmup: int, every: int) -> None:
    """Learning rates and optimizer state follow these numbers; a gap or a repeat would be a wrong schedule."""
    spec = example()
    spec.update(params={"warmup": warmup}, steps=steps)
    stage(spec, "roll")["every"] = every
    pipeline = Pipeline.from_dict(spec)
    seen: dict[str, list[Training]] = {}
    for step in range(steps):
        for training in plan(pipeline, step).trainings:
            seen.setdefault(training.stage, []).append(training)
    for updates in seen.values():
        assert [training.update for training in updates] == list(range(len(updates)))
        assert {training.updates for training in updates} == {len(updates)}
        assert [training.keep_optimizer for training in updates] == [True] * (len(updates) - 1) + [False]


@given(groups=st.integers(1, 500), partitions=st.integers(1, 64))
def test_partitions_share_all_groups_evenly(groups: int, partitions: int) -> None:
    """Each prompt of a step is in one partition, once, in order."""
    chain = Chain(("roll",), partitions, max(groups, partitions), (), "manifest")
    runs = [partition_groups(chain, p) for p in range(partitions)]
    assert [first for first, _ in runs] == [0, *(end for _, end in runs[:-1])]
    assert runs[-1][1] == chain.groups
    sizes = {end - first for first, end in runs}
    assert max(sizes) - min(sizes) <= 1


def test_the_tasks_of_a_step_name_every_stage_of_every_partition() -> None:
    keys = tasks(plan(Pipeline.from_dict(example()), 50))
    assert len(keys) == 12 * 3 + 8 + 8 + 1
    assert keys[0] == TaskKey(50, "roll", Partition(0))
    assert keys[-1] == TaskKey(50, "learn", Once("apply"))
    assert len(set(keys)) == len(keys)


def test_a_long_run_is_planned_as_a_short_one() -> None:
    """Schedules are worked out once, not anew at every look."""
    spec: dict[str, Any] = example()
    spec["params"]["grpo"] = 100_000
    (training,) = plan(Pipeline.from_dict(spec), 100_049).trainings
    assert (training.update, training.updates, training.keep_optimizer) == (99_999, 100_000, False)
