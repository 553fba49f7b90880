"""`algorithm: NAME`: what it stands for is a function of what is written, and what is written wins."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from dflow_protocols.pipeline import Pipeline, SpecError, Stage
from dflow_protocols.pipeline.grammar.schema import make_schema
from dflow_protocols.pipeline.recipes.catalog import RECIPES
from dflow_protocols.pipeline.recipes.expansion import expand, give_way
from tests.unit.protocols.pipeline.grammar.schema_check import fits
from tests.unit.protocols.written_specs import example, stage

ROLL = {"id": "roll", "config": {"prompts": 8, "max_tokens": 6}}


def short(algorithm: str, *stages: dict[str, Any]) -> dict[str, Any]:
    """As little as one may write: what a step has, and the algorithm's name."""
    whole = example()
    models = {"policy": {"path": "model/"}}
    return {
        "name": "short",
        "steps": 10,
        "models": models,
        "data": whole["data"],
        "algorithm": algorithm,
        "stages": [ROLL, *stages],
    }


def ids(spec: Any) -> list[str]:
    return [each["id"] for each in expand(spec)["stages"]]


def test_an_algorithm_is_what_is_written_out_in_full() -> None:
    """Its name is another way to write a pipeline: id, and so seeds and weights, are the same."""
    named = {**give_way(example(), "dr_grpo"), "algorithm": "dr_grpo"}
    full = example()
    stage(full, "adv")["config"] = {"method": "grpo", "scale": "none"}
    stage(full, "learn")["config"]["loss"] = {"kind": "dr_grpo", "clip": [0.2, 0.2]}
    assert Pipeline.from_dict(named).id == Pipeline.from_dict(full).id
    assert "algorithm" not in json.loads(Pipeline.from_dict(named).canonical())


@pytest.mark.parametrize("name", RECIPES)
def test_every_algorithm_makes_a_pipeline_of_its_name_and_a_rollout(name: str) -> None:
    spec = short(name)
    if "teach" in RECIPES[name].config:
        spec["models"]["teacher"] = {"path": "teacher/"}
    if "pairs" in RECIPES[name].config:
        spec["data"] = {"pairs": {"jsonl": "pairs.jsonl", "rejected": "worse"}}
        spec["stages"] = [{"id": "pairs", "config": {"prompts": 8, "max_tokens": 8}}]
    pipeline = Pipeline.from_dict(spec)
    assert tuple(each.id for each in pipeline.stages) == RECIPES[name].roles
    assert fits(make_schema(), spec)
    assert Pipeline.from_canonical(pipeline.canonical()) == pipeline


def test_what_is_written_wins_and_the_rest_is_filled_in() -> None:
    spec = short("dr_grpo", {"id": "learn", "config": {"loss": {"clip": [0.1, 0.3]}}})
    loss = Pipeline.from_dict(spec).stage("learn").config["loss"]
    assert (loss["kind"], loss["clip"]) == ("dr_grpo", [0.1, 0.3])


def test_another_loss_that_is_written_gets_none_of_the_algorithms_settings() -> None:
    """They would be no settings of it."""
    spec = short("dr_grpo", {"id": "learn", "config": {"loss": {"kind": "cispo"}}})
    pipeline = Pipeline.from_dict(spec)
    assert pipeline.stage("learn").config["loss"] == {"kind": "cispo", "high": 5.0, "kl": 0.0}
    assert pipeline.stage("adv").config["scale"] == "none"


def test_a_key_that_is_written_as_null_has_its_default() -> None:
    """Null is written, too: it says that the algorithm's is not meant."""
    spec = short("dr_grpo", {"id": "learn", "config": {"loss": {"clip": None}}})
    assert Pipeline.from_dict(spec).stage("learn").config["loss"]["clip"] == [0.2, 0.28]


def test_stages_play_their_part_whatever_they_are_called() -> None:
    """By operator and model: the newcomer's pipeline keeps its stages, and their other settings."""
    spec = example()
    stage(spec, "learn")["id"] = "teach"
    expanded = expand(spec | {"algorithm": "cispo"})
    assert [each["id"] for each in expanded["stages"]] == ["warm", "roll", "score", "adv", "teach", "heldout"]
    assert stage(dict(expanded), "warm") == stage(spec, "warm")


def test_a_stage_that_is_missing_stands_behind_what_it_reads() -> None:
    spec = example() | {"algorithm": "rloo"}
    spec["stages"] = [each for each in spec["stages"] if each["id"] in ("warm", "roll", "heldout")]
    assert ids(spec) == ["warm", "roll", "score", "adv", "learn", "heldout"]
    spec["stages"] = [each for each in spec["stages"] if each["id"] != "roll"]
    assert ids(spec) == ["warm", "heldout", "roll", "score", "adv", "learn"]


def test_a_stage_of_ones_own_that_writes_the_same_takes_the_place() -> None:
    own = {"id": "best", "op": "best.py:best", "writes": ["advantage"]}
    assert ids(short("grpo", {"id": "score", "op": "reward"}, own)) == ["roll", "score", "best", "learn"]


@pytest.mark.parametrize("kl", [0.04, "0.04", "strength"])
def test_a_policy_that_is_held_near_a_reference_gets_one(kl: float | str) -> None:
    """The policy's own first weights, frozen, without the adapters that are trained."""
    spec = short("grpo", {"id": "learn", "config": {"loss": {"kl": kl}}}) | {"params": {"strength": 0.1}}
    spec["models"]["policy"]["lora"] = {"rank": 4, "alpha": 8}
    pipeline = Pipeline.from_dict(spec)
    assert [each.id for each in pipeline.stages] == ["roll", "score", "ref", "adv", "learn"]
    assert pipeline.stage("ref").model == "reference"
    assert pipeline.is_base_of("reference") == "policy"


def test_a_teacher_is_somebodys_to_name() -> None:
    """The policy's own weights know nothing that it does not; and nothing is scored, as words are not compared."""
    with pytest.raises(SpecError, match="there is no model `teacher`"):
        Pipeline.from_dict(short("distill"))
    spec = short("distill", {"id": "teach", "model": "wise"})
    spec["models"]["wise"] = {"path": "wise/"}
    pipeline = Pipeline.from_dict(spec)
    assert [each.id for each in pipeline.stages] == ["roll", "teach", "adv", "learn"]
    assert pipeline.stage("adv").reads == ["roll.rollout", "teach.logprob"]


def test_a_critic_is_made_of_the_policy_and_trained_as_it_is() -> None:
    """With its first weights and its optimizer, unless one is written; stages of the example keep their order."""
    expanded = expand({**give_way(example(), "ppo"), "algorithm": "ppo"})
    assert [each["id"] for each in expanded["stages"]] == [
        "warm",
        "roll",
        "score",
        "value",
        "adv",
        "learn",
        "critic",
        "heldout",
    ]
    assert expanded["models"]["critic"] == {**example()["models"]["policy"], "head": "value"}
    learn, critic = stage(dict(expanded), "learn"), stage(dict(expanded), "critic")
    assert critic["model"] == "critic"
    assert critic["config"]["loss"]["kind"] == "value"
    assert critic["config"]["optimizer"] == learn["config"]["optimizer"]
    own = {"id": "critic", "config": {"optimizer": {"adamw": {"lr": 1e-3}}}}
    expanded = expand({**give_way(example(), "ppo"), "algorithm": "ppo", "stages": [*example()["stages"], own]})
    assert stage(dict(expanded), "critic")["config"]["optimizer"] == {"adamw": {"lr": 1e-3}}


def test_a_critic_that_is_written_is_the_algorithms() -> None:
    """By its head, whatever the model and its stages are called."""
    spec = short("ppo", {"id": "teach", "op": "train", "model": "judge", "config": {"optimizer": {"adamw": {"lr": 1}}}})
    spec["models"]["judge"] = {"path": "judge/", "head": "value"}
    expanded = expand(spec)
    assert [each["id"] for each in expanded["stages"]] == ["roll", "score", "value", "adv", "learn", "teach"]
    assert stage(dict(expanded), "value")["model"] == "judge"
    assert set(expanded["models"]) == {"policy", "judge"}


def test_a_layer_above_is_given_way_to_by_what_belongs_to_the_old_algorithm() -> None:
    """Settings of another kind would be mistakes beside the new one; the optimizer is no algorithm's."""
    spec = example()
    stage(spec, "adv")["config"]["rewards"] = {"score": 1.0}
    left = give_way(spec, "rloo")
    assert stage(dict(left), "adv")["config"] == {"rewards": {"score": 1.0}}
    assert stage(dict(left), "learn")["config"].keys() == {"leaves", "clip_norm", "optimizer"}


def test_expanding_changes_nothing_that_it_was_given() -> None:
    """Neither the spec nor the tables."""
    spec = short("grpo", {"id": "learn", "config": {"loss": {"kl": 0.1}}})
    before, tables = copy.deepcopy(spec), copy.deepcopy(RECIPES)
    expand(spec)["stages"][-1]["config"]["loss"]["clip"].append(1)
    give_way(spec, "rloo")
    assert (spec, RECIPES) == (before, tables)


@pytest.mark.parametrize("raw", [{}, {"models": 3}, {"models": {}, "stages": 3}, {"models": {}, "stages": [3]}])
def test_what_is_no_pipeline_is_left_to_validation(raw: dict[str, Any]) -> None:
    raw = raw | {"algorithm": "grpo"}
    assert expand(raw) == raw
    with pytest.raises(SpecError):
        Pipeline.from_dict(raw)


def test_a_name_that_is_none_is_told_with_the_one_that_was_meant() -> None:
    with pytest.raises(SpecError) as caught:
        Pipeline.from_dict(example() | {"algorithm": "dr_grpoo"})
    (problem,) = caught.value.problems
    assert (problem.path, problem.what) == ("algorithm", "`algorithm` is `dr_grpoo`")
    assert problem.hint == "did you mean `dr_grpo`?"


def test_a_pipeline_in_python_takes_a_name_too() -> None:
    spec = short("rloo")
    stages = [Stage("roll", "generate", "policy", config={"data": "words", "prompts": 8, "max_tokens": 6})]
    pipeline = Pipeline("short", 10, spec["models"], stages, spec["data"], algorithm="rloo")
    assert pipeline == Pipeline.from_dict(spec)


@pytest.mark.parametrize(
    "wrong", [{"id": {}}, {"id": "a", "op": "train", "model": ["policy"]}, {"op": "m:f", "writes": 5}]
)
def test_what_is_no_stage_is_told_as_without_an_algorithm(wrong: dict[str, Any]) -> None:
    """A slip of the pen in a spec must not look like a fault of the program."""
    spec = short("ppo", {"id": "own", **wrong})
    assert expand(spec) is spec
    with pytest.raises(SpecError, match=r"is a mapping|is a list|is the number 5"):
        Pipeline.from_dict(spec)


def test_a_mistake_is_told_of_what_was_written() -> None:
    """The stages that an algorithm makes move those behind them; of what it made its name is the place."""
    spec = short("ppo", {"id": "learn", "config": {"leaves": 3, "optimizer": {"adamw": {"lr": 1e-4}}}})
    with pytest.raises(SpecError) as caught:
        Pipeline.from_dict(spec)
    told = [(problem.path, problem.what) for problem in caught.value.problems]
    assert told == [
        ("stages[1].config.leaves", "stage `learn`: `leaves` is 3, which is no power of two"),
        ("algorithm", "stage `critic`: `leaves` is 3, which is no power of two"),
    ]


def test_a_stage_of_the_algorithm_that_is_written_twice_is_a_mistake_of_the_second() -> None:
    """Its settings, or those of the first, would be lost without a word."""
    with pytest.raises(SpecError) as caught:
        Pipeline.from_dict(short("grpo", {"id": "roll", "config": {"group": 4}}))
    assert ("stages[1].id", "there are two stages `roll`") in [(each.path, each.what) for each in caught.value.problems]
