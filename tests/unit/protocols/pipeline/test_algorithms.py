"""Losses and advantages by name: each has its own settings, and a step's sum its own divisor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dflow_protocols.pipeline import Pipeline, Problem, SpecError, Training, plan
from dflow_protocols.pipeline.doubts import doubts
from dflow_protocols.pipeline.files import named_files, with_own_code
from dflow_protocols.pipeline.grammar.schema import make_schema
from tests.unit.protocols.pipeline.grammar.schema_check import fits
from tests.unit.protocols.written_specs import example, stage


def spec_with(method: dict[str, Any] | None = None, loss: dict[str, Any] | None = None) -> dict[str, Any]:
    """The newcomer's pipeline, with another advantage or another loss."""
    spec = example()
    if method is not None:
        stage(spec, "adv")["config"] = method
    if loss is not None:
        stage(spec, "learn")["config"]["loss"] = loss
    return spec


def training_of(spec: dict[str, Any]) -> Training:
    (training,) = plan(Pipeline.from_dict(spec), 60).trainings
    return training


def test_a_pipeline_that_names_no_loss_is_the_one_of_before_there_were_several() -> None:
    """Its id seeds everything: `kind` may only be written where it says something new."""
    pipeline = Pipeline.from_dict(example())
    assert dict(pipeline.stage("learn").config["loss"]).keys() == {"clip", "mean", "kl"}
    assert Pipeline.from_dict(spec_with(loss={"kind": "grpo"})).id == Pipeline.from_dict(spec_with(loss={})).id


@pytest.mark.parametrize(
    ("method", "loss"), [({"method": "rloo"}, None), (None, {"kind": "dr_grpo"}), (None, {"kind": "dr_grpo", "kl": 0})]
)
def test_another_algorithm_is_another_pipeline_and_reads_back(
    method: dict[str, Any] | None, loss: dict[str, Any] | None
) -> None:
    """What it travels as says it, and says nothing of settings that it has not."""
    spec = spec_with(method, loss)
    pipeline = Pipeline.from_dict(spec)
    assert fits(make_schema(), spec)
    assert fits(make_schema(), pipeline.to_dict())
    assert Pipeline.from_canonical(pipeline.canonical()) == pipeline
    assert pipeline.id != Pipeline.from_dict(example()).id
    assert "scale" not in pipeline.stage("adv").config or method is None
    assert "mean" not in pipeline.stage("learn").config["loss"] or loss is None


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (
            spec_with(method={"method": "rloo", "scale": "std"}),
            Problem(
                "stages[3].config.scale",
                "stage `adv`: `scale` is no setting of `rloo`",
                "leave it out, or write `method: grpo`",
            ),
        ),
        (
            spec_with(loss={"kind": "dr_grpo", "mean": "token"}),
            Problem(
                "stages[4].config.loss.mean",
                "stage `learn`: `mean` is no setting of `dr_grpo`",
                "leave it out, or write `kind: grpo`",
            ),
        ),
        (
            spec_with(loss={"kind": "dr_grpoo"}),
            Problem("stages[4].config.loss.kind", "stage `learn`: `kind` is `dr_grpoo`", "did you mean `dr_grpo`?"),
        ),
        (
            spec_with(loss={"kind": "cross_entropy"}),
            Problem(
                "stages[4].config.loss.kind",
                "stage `learn`: `kind` is `cross_entropy`",
                "known values: bradley_terry, cispo, clip_cov, cpgd, dpo, dr_grpo, gmpo, gpg, grpo, gspo, kl_cov, ppo, "
                "value (or give `module:function`, or `file.py:function` beside the spec)",
            ),
        ),
        (
            spec_with(loss={"kind": "dr_grpo", "kl": 0.1}),
            Problem(
                "stages[4]",
                "stage `learn` reads `logprob`, which no stage before it writes",
                "add a `logprob` stage before it",
            ),
        ),
    ],
)
def test_a_setting_that_the_algorithm_has_not_is_told_with_the_one_that_has_it(
    spec: dict[str, Any], problem: Problem
) -> None:
    """A key that is silently passed over is a night of training with another loss than was meant."""
    with pytest.raises(SpecError) as told:
        Pipeline.from_dict(spec)
    assert told.value.problems == (problem,)
    assert fits(make_schema(), spec) == problem.path.endswith("[4]")


def test_an_overlay_takes_a_setting_away_that_another_kind_has_not() -> None:
    """A spec that says `mean` is laid over by one that names another loss."""
    spec = spec_with(loss={"kind": "dr_grpo", "mean": None})
    assert Pipeline.from_dict(spec) == Pipeline.from_dict(spec_with(loss={"kind": "dr_grpo"}))
    assert fits(make_schema(), spec)


def test_what_a_step_is_divided_by_follows_from_the_loss() -> None:
    """Tokens, sequences, or what the rollout may have at most: whatever is dropped, Dr. GRPO's divisor stays."""
    spec = spec_with(loss={"kind": "dr_grpo"})
    roll = stage(spec, "roll")["config"]
    most = roll["prompts"] * roll["group"] * roll["max_tokens"]
    groups = [(50, 8), (0, 0), (30, 8)]
    assert training_of(spec_with(loss={})).divide_by(groups) == 80
    assert training_of(spec_with(loss={"mean": "sequence"})).divide_by(groups) == 16
    assert training_of(spec).divide_by(groups) == training_of(spec).divide_by([]) == most


def test_demonstrations_are_divided_by_their_tokens() -> None:
    """An `sft` stage has one loss, and no key for it."""
    (training,) = plan(Pipeline.from_dict(example()), 0).trainings
    assert training.divide_by([(5, 1), (7, 1)]) == 12


OWN = {"kind": "mine.py:loss", "divisor": "samples", "args": {"beta": 0.1}}


def test_a_loss_of_ones_own_says_what_it_is_divided_by_and_travels_with_the_spec() -> None:
    """Its file is digested and run as a reward's is."""
    spec = spec_with(loss=OWN)
    pipeline = Pipeline.from_dict(spec)
    assert fits(make_schema(), spec)
    assert Pipeline.from_canonical(pipeline.canonical()) == pipeline
    assert training_of(spec).divide_by([(50, 8), (30, 8)]) == 16
    named = {each.name: each.path for each in named_files(pipeline)}
    assert named["mine.py:loss"] == "stages[4].config.loss.kind"
    held = replace(pipeline, digests={"stages[4].config.loss.kind": "f" * 64})
    assert with_own_code(held) == ("learn",)


def test_a_loss_of_ones_own_may_read_what_a_stage_of_ones_own_wrote() -> None:
    """Any column that stands in `reads`; a built-in loss has no use for it."""
    spec = spec_with(loss=OWN)
    mine = {"id": "mine", "op": "mine.py:gaps", "reads": ["*"], "writes": ["gap"], "per_token": ["gap"]}
    spec["stages"].insert(4, mine)
    stage(spec, "learn")["reads"] = ["mine.gap"]
    assert "mine.gap" in training_of(spec).reads
    stage(spec, "learn")["config"]["loss"] = {"kind": "grpo"}
    with pytest.raises(SpecError, match="`train` has no use for `gap`"):
        Pipeline.from_dict(spec)


def test_settings_of_a_loss_of_ones_own_stand_in_its_args() -> None:
    """A key beside them would be passed over in silence."""
    with pytest.raises(SpecError) as told:
        Pipeline.from_dict(spec_with(loss={**OWN, "clip": [0.2, 0.2]}))
    (problem,) = told.value.problems
    assert problem.what == "stage `learn`: `clip` is no setting of `mine.py:loss`"


OWN_METHOD = {"method": "mine.py:adv", "args": {"power": 2}, "drop_flat_groups": True, "timeout_s": 5}


def test_an_advantage_of_ones_own_travels_with_the_spec() -> None:
    """Its file is digested and run as a reward's is, and a run is bound to it."""
    spec = spec_with(method=OWN_METHOD)
    pipeline = Pipeline.from_dict(spec)
    assert fits(make_schema(), spec)
    assert Pipeline.from_canonical(pipeline.canonical()) == pipeline
    named = {each.name: each.path for each in named_files(pipeline)}
    assert named["mine.py:adv"] == "stages[3].config.method"
    held = replace(pipeline, digests={"stages[3].config.method": "f" * 64})
    assert with_own_code(held) == ("adv",)


def test_settings_of_an_advantage_of_ones_own_stand_in_its_args() -> None:
    with pytest.raises(SpecError) as told:
        Pipeline.from_dict(spec_with(method=OWN_METHOD | {"scale": "std"}))
    (problem,) = told.value.problems
    assert problem.what == "stage `adv`: `scale` is no setting of `mine.py:adv`"
    assert problem.hint == "leave it out, or write `method: grpo`"


def test_a_method_that_goes_by_no_reward_reads_none() -> None:
    """A reward may be there for people to see; to weigh it would be a mistake."""
    spec = spec_with(method={"method": "distill"})
    spec["models"]["teacher"] = {"path": "teacher/"}
    spec["stages"].insert(3, {"id": "teach", "op": "logprob", "model": "teacher"})
    pipeline = Pipeline.from_dict(spec)
    assert pipeline.stage("adv").reads == ["roll.rollout", "teach.logprob"]
    assert not [*doubts(pipeline)]
    stage(spec, "adv")["config"]["rewards"] = {"score": 1.0}
    with pytest.raises(SpecError, match="`distill` goes by no reward"):
        Pipeline.from_dict(spec)
