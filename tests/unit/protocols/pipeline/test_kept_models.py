"""Models that are an earlier version of another one: what a spec may say of them, and what is opened for them."""

from __future__ import annotations

from typing import Any

import pytest

from dflow_protocols.pipeline import Pipeline, SpecError, plan
from dflow_protocols.pipeline.doubts import doubts
from dflow_protocols.pipeline.files import named_files
from tests.unit.protocols.written_specs import example, stage


def written(**reference: Any) -> dict[str, Any]:
    """50 steps of demonstrations, then GRPO with a KL from what they have led to."""
    spec = example()
    spec["models"]["reference"] = {"version_of": "policy", "at": "warmup", **reference}
    spec["stages"].insert(3, {"id": "ref", "op": "logprob", "model": "reference"})
    stage(spec, "learn")["config"]["loss"] = {"kl": 0.05}
    return spec


def mistake(spec: dict[str, Any]) -> tuple[str, str]:
    with pytest.raises(SpecError) as caught:
        Pipeline.from_dict(spec)
    (problem,) = caught.value.problems
    return problem.what, problem.hint


def test_it_is_described_as_the_other_one_and_named_by_a_step() -> None:
    """Nothing of it is a file's: what an engine opens is the other one, whose weights a version brings."""
    pipeline = Pipeline.from_dict(written())
    assert pipeline.models["reference"] == {"version_of": "policy", "at": 50, "dtype": "float32"}
    assert pipeline.described("reference") == pipeline.models["policy"]
    assert not any(named.path.startswith("models.reference") for named in named_files(pipeline))
    assert Pipeline.from_canonical(pipeline.canonical()) == pipeline
    chain = next(chain for chain in plan(pipeline, 60).chains if "ref" in chain.stages)
    assert chain.models == ("policy", "reference")


def test_with_adapters_it_is_no_base() -> None:
    """A reference that is described as the policy is passes through its base alone; a version of it does not."""
    spec = written()
    spec["models"]["policy"]["lora"] = {"rank": 4, "alpha": 8}
    pipeline = Pipeline.from_dict(spec)
    assert pipeline.is_base_of("reference") is None
    assert pipeline.described("reference")["lora"] == pipeline.models["policy"]["lora"]


def test_no_stage_asks_it_before_it_is_there() -> None:
    spec = written(at=60)
    what, hint = mistake(spec)
    assert what == "stage `ref` runs at step 50, and `reference` is what step 60 begins with"
    assert hint == "have what it reads begin at step 60: `when: step >= 60`"


def test_it_is_of_a_model_that_is_trained_and_is_not_trained_itself() -> None:
    spec = written(version_of="polcy")
    assert mistake(spec) == (
        "model `reference` is to be a version of `polcy`, which no stage trains",
        "did you mean `policy`?",
    )
    spec = written()
    stage(spec, "warm")["model"] = "reference"
    assert mistake(spec) == (
        "model `reference` is a version of `policy`, and a stage trains it",
        "give it weights of its own to begin with, by `path` or `init`",
    )


@pytest.mark.parametrize("ahead", [{"lag": 2}, {"reproducibility": "replay", "async": {"max_staleness": 2}}])
def test_no_rollouts_of_a_version_before_it_are_scored_by_it(ahead: dict[str, Any]) -> None:
    """They are scored with what the version has that sampled them, so it would be another model at each step."""
    what, hint = mistake(written() | ahead)
    assert (
        what == "stage `ref` runs at step 50 on rollouts of what step 48 begins with, "
        "and `reference` is what step 50 does"
    )
    assert hint == "have what it reads begin at step 52: `when: step >= 52`; or lower `at` of `models.reference` to 48"
    for at in (0, 48):
        assert Pipeline.from_dict(written(at=at) | ahead).kept["reference"].number == at


def test_an_evaluation_is_of_the_newest_version_however_far_rollouts_are_behind() -> None:
    """So it may ask a model from the step on that begins with it."""
    spec = written(at=48) | {"lag": 2}
    config = {"data": "words.held_out", "count": 8, "max_tokens": 6}
    asking = {"op": "evaluate", "model": "reference", "when": "step >= 48", "config": config}
    spec["stages"].append({"id": "then", **asking})
    assert Pipeline.from_dict(spec).stage("then").model == "reference"


def test_prompts_are_dropped_by_the_tokenizer_of_the_other_one() -> None:
    """So both may read one data set."""
    spec = written()
    spec["data"]["rows"] = {"jsonl": "rows.jsonl", "max_prompt_tokens": 64, "long_prompts": "drop"}
    asking = {"op": "evaluate", "config": {"data": "rows", "count": 8, "max_tokens": 4}}
    spec["stages"] += [
        {"id": "now", "model": "policy", **asking},
        {"id": "then", "model": "reference", "when": "step >= warmup", **asking},
    ]
    assert Pipeline.from_dict(spec).stage("then").model == "reference"


def test_a_run_that_ends_before_is_told() -> None:
    """The final version is evaluated in any case, by whoever is to be evaluated."""
    spec = written()
    last = Pipeline.from_dict(spec).schedule.steps
    config = {"data": "words.held_out", "count": 8, "max_tokens": 6}
    spec["models"]["late"] = {"version_of": "policy", "at": last}
    spec["stages"].append(
        {"id": "after", "op": "evaluate", "model": "late", "when": f"step >= {last}", "config": config}
    )
    assert Pipeline.from_dict(spec).schedule.runs("after") == 0
    spec["models"]["late"]["at"] = last + 1
    what, hint = mistake(spec)
    assert what == f"stage `after` runs at step {last}, and `late` is what step {last + 1} begins with"
    assert hint == f"the run ends with step {last - 1}: lower `at` of `models.late`"


def test_an_evaluation_that_begins_too_early_is_to_begin_later_itself() -> None:
    spec = written()
    config = {"data": "words.held_out", "count": 8, "max_tokens": 6}
    spec["stages"].append({"id": "before", "op": "evaluate", "model": "reference", "every": 20, "config": config})
    what, hint = mistake(spec)
    assert what == "stage `before` runs at step 0, and `reference` is what step 50 begins with"
    assert hint == "have it begin at step 50: `when: step >= 50`"


def test_one_that_no_stage_asks_is_doubted() -> None:
    """Every node would hold it, and each checkpoint."""
    spec = written()
    assert not any(doubt.path.startswith("models.") for doubt in doubts(Pipeline.from_dict(spec)))
    spec["models"]["earlier"] = {"version_of": "policy", "at": 80}
    (doubt,) = doubts(Pipeline.from_dict(spec))
    assert doubt.path == "models.earlier"
    assert doubt.what == "no stage asks `earlier`, and each version carries these parameters of `policy` along"
    assert doubt.hint == "name it in a stage, `model: earlier`, or leave it out"


def test_an_algorithm_takes_it_for_no_policy() -> None:
    """Where it is the only other model, the one that is trained is known."""
    spec = written(version_of="student")
    spec["models"]["student"] = spec["models"].pop("policy")
    spec |= {"algorithm": "grpo", "stages": [{"id": "roll", "config": {"prompts": 8, "max_tokens": 6}}]}
    spec["models"]["reference"]["at"] = 0
    spec["stages"].append({"id": "learn", "config": {"loss": {"kl": 0.05}}})
    pipeline = Pipeline.from_dict(spec)
    assert {stage.id: stage.model for stage in pipeline.stages if stage.model} == {
        "roll": "student",
        "ref": "reference",
        "learn": "student",
    }
