"""Models that are an earlier version of another one: what a spec may say of them, and what is opened for them."""

from __future__ import annotations

from typing import Any

import pytest

from dflow_protocols.pipeline import Pipeline, SpecError, plan
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


@pytest.mark.parametrize("ahead", [{"lag": 1}, {"reproducibility": "replay", "async": {"max_staleness": 1}}])
def test_nothing_that_is_sampled_ahead_is_scored_by_it(ahead: dict[str, Any]) -> None:
    """It would be asked before it is made."""
    what, hint = mistake(written() | ahead)
    key = list(ahead)[-1]
    assert what == f"model `reference` is a version of `policy`, which `{key}` would ask before it is made"
    assert hint == f"leave `{key}` out, or save that version and name it by `path`"
