"""Critics: a model with a value head, who may be asked what, and what GAE and its losses want of a pipeline."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from dflow_protocols.pipeline import Pipeline, Problem, SpecError, plan
from dflow_protocols.pipeline.doubts import doubts
from dflow_protocols.pipeline.grammar.schema import make_schema
from tests.unit.protocols.pipeline.grammar.schema_check import fits
from tests.unit.protocols.written_specs import example, stage

OWN_SCORES = {"id": "own", "op": "logprob", "model": "policy"}
FIT: dict[str, Any] = {"leaves": 8, "loss": {"kind": "value"}, "optimizer": {"adamw": {"lr": 1e-3}}}


def spec() -> dict[str, Any]:
    """The newcomer's pipeline with a critic, which is trained at the even steps, and the policy at the odd ones."""
    raw = example()
    raw["models"]["critic"] = {**raw["models"]["policy"], "head": "value"}
    stage(raw, "adv")["config"] = {"method": "gae"}
    stage(raw, "learn")["when"] = "step >= warmup and step % 2 == 1"
    stage(raw, "learn")["config"]["loss"] = {"kind": "ppo"}
    even = {"when": "step >= warmup and step % 2 == 0"}
    raw["stages"].insert(3, {"id": "guess", "op": "value", "model": "critic"})
    raw["stages"].insert(5, {"id": "fit", "op": "train", "model": "critic", **even, "config": deepcopy(FIT)})
    return raw


def changed(name: str, **config: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda raw: stage(raw, name)["config"].update(config)


def problem_of(change: Callable[[dict[str, Any]], Any]) -> Problem:
    raw = spec()
    change(raw)
    with pytest.raises(SpecError) as told:
        Pipeline.from_dict(raw)
    (problem,) = told.value.problems
    return problem


def test_a_critic_is_read_trained_and_kept_beside_its_policy() -> None:
    """Its values are of the step's version of it, as the rollouts are of the policy's."""
    pipeline = Pipeline.from_dict(spec())
    assert fits(make_schema(), spec())
    assert Pipeline.from_canonical(pipeline.canonical()) == pipeline
    assert pipeline.trainable == ("critic", "policy")
    assert pipeline.stage("adv").writes == ["advantage", "return"]
    assert pipeline.stage("fit").reads == ["roll.rollout", "adv.advantage", "guess.value", "adv.return"]
    assert pipeline.stage("learn").reads == ["roll.rollout", "adv.advantage"]
    (rollout,), (training,) = plan(pipeline, 60).chains, plan(pipeline, 60).trainings
    assert rollout.stages == ("roll", "score", "guess", "adv")
    assert rollout.models == ("critic", "policy")
    assert (training.stage, training.model, training.divisor) == ("fit", "critic", "tokens")


def test_a_model_without_a_head_of_its_own_is_written_as_before() -> None:
    """Its id seeds everything."""
    pipeline = Pipeline.from_dict(example())
    assert "head" not in pipeline.models["policy"]
    assert pipeline.stage("adv").writes == ["advantage"]


def test_a_checkpoints_top_is_the_model_that_speaks() -> None:
    """Whoever opens an export wants what was trained, and not what judged it on the way."""
    pipeline = Pipeline.from_dict(spec())
    assert {name: pipeline.folder_of(name) for name in pipeline.trainable} == {"critic": "critic", "policy": ""}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda raw: stage(raw, "guess").update(model="policy"),
            Problem(
                "stages[3].model",
                "stage `guess`: it needs a model with `head: value`, and model `policy` says which token comes next",
                "add `head: value` to `models.policy`, or name another model",
            ),
        ),
        (
            lambda raw: stage(raw, "learn").update(model="critic"),
            Problem(
                "stages[6].model",
                "stage `learn`: it needs a language model, and model `critic` has `head: value`",
                "name another model, or write `loss: {kind: value}`",
            ),
        ),
        (
            lambda raw: stage(raw, "heldout").update(model="critic"),
            Problem(
                "stages[7].model",
                "stage `heldout`: it needs a language model, and model `critic` has `head: value`",
                "name another model",
            ),
        ),
        (
            lambda raw: raw["models"]["critic"].update(lora={"rank": 4, "alpha": 8}),
            Problem(
                "models.critic.lora",
                "model `critic` has adapters, and a head that is trained whole",
                "leave `lora` out: all of a critic's weights are trained",
            ),
        ),
        (
            changed("adv", drop_flat_groups=True),
            Problem(
                "stages[4].config.drop_flat_groups",
                "stage `adv`: `gae` compares nothing within a group, so none is flat",
                "leave `drop_flat_groups` out",
            ),
        ),
        (
            changed("fit", correction={"kind": "truncate"}),
            Problem(
                "stages[5].config.correction",
                "stage `fit`: `correction` weighs probabilities, and `value` is a loss of a critic",
                "leave `correction` out",
            ),
        ),
        (
            changed("adv", method="grpo"),
            Problem(
                "stages[5]",
                "stage `fit` reads `return`, which no stage before it writes",
                "add an `advantage` stage with `method: gae` before it",
            ),
        ),
        (
            changed("adv", kl=0.1),
            Problem(
                "stages[4]",
                "stage `adv` reads `logprob`, which no stage before it writes",
                "add a `logprob` stage before it",
            ),
        ),
        (
            lambda raw: (changed("adv", kl=0.1)(raw), raw["stages"].insert(4, {**OWN_SCORES})),
            Problem(
                "stages[5].config.kl",
                "stage `adv`: `kl` is the distance from another model, and `own` scores by the one that sampled",
                "read a `logprob` stage of another model under `models`",
            ),
        ),
    ],
)
def test_what_a_critic_cannot_do_is_told_before_the_run(
    change: Callable[[dict[str, Any]], Any], problem: Problem
) -> None:
    """In a step it would be a layer's complaint about a shape."""
    assert problem_of(change) == problem


def test_a_critic_has_no_correction_of_a_sampler_that_computes_otherwise() -> None:
    """It weighs probabilities; the policy beside it has one by default."""
    raw = spec()
    stage(raw, "learn")["config"]["compute"] = stage(raw, "fit")["config"]["compute"] = "bfloat16"
    pipeline = Pipeline.from_dict(raw)
    assert "correction" in pipeline.stage("learn").config
    assert "correction" not in pipeline.stage("fit").config


def test_one_completion_of_a_prompt_is_enough_for_a_critic() -> None:
    """Nothing is compared within a group, so no doubt is told of one of 1."""
    raw = spec()
    stage(raw, "roll")["config"]["group"] = 1
    assert not [doubt for doubt in doubts(Pipeline.from_dict(raw)) if "group" in doubt.what]


def test_an_earlier_version_of_a_critic_is_one_as_well() -> None:
    """Described by its name alone, it says what the critic does, and no tokens."""
    raw = spec()
    raw["models"]["earlier"] = {"version_of": "critic", "at": "warmup"}
    raw["stages"].insert(4, {"id": "before", "op": "value", "model": "earlier"})
    stage(raw, "adv")["reads"] = ["roll.rollout", "score.reward", "guess.value"]
    stage(raw, "fit")["reads"] = ["roll.rollout", "adv.advantage", "guess.value", "adv.return"]
    assert Pipeline.from_dict(raw).stage("before").writes == ["value"]
    stage(raw, "before")["op"] = "logprob"
    with pytest.raises(SpecError) as told:
        Pipeline.from_dict(raw)
    assert [problem.what for problem in told.value.problems] == [
        "stage `before`: it needs a language model, and model `earlier` has `head: value`"
    ]


def test_what_an_earlier_version_lacks_the_model_itself_is_to_have() -> None:
    raw = spec()
    raw["models"]["earlier"] = {"version_of": "policy", "at": "warmup"}
    stage(raw, "guess")["model"] = "earlier"
    with pytest.raises(SpecError) as told:
        Pipeline.from_dict(raw)
    assert [(problem.what, problem.hint) for problem in told.value.problems] == [
        (
            "stage `guess`: it needs a model with `head: value`, and model `earlier` says which token comes next",
            "add `head: value` to `models.policy`, or name another model",
        )
    ]
