"""Learning from pairs: what such a pipeline has to have, and what would be no pairs."""

from __future__ import annotations

from typing import Any

import pytest

from dflow_protocols.pipeline import Pipeline, SpecError, plan
from tests.unit.protocols.written_specs import example, stage


def written(**learn: Any) -> dict[str, Any]:
    spec = example()
    spec["models"]["reference"] = dict(spec["models"]["policy"])
    spec["stages"].insert(3, {"id": "ref", "op": "logprob", "model": "reference"})
    stage(spec, "adv")["config"] = {"method": "pairs"}
    stage(spec, "learn")["config"] |= {"loss": {"kind": "dpo"}, **learn}
    return spec


def test_a_training_by_pairs_reads_a_reference_and_counts_completions() -> None:
    """Two of each group, whose loss is counted twice, so that a step's is the mean over pairs."""
    pipeline = Pipeline.from_dict(written())
    assert "ref.logprob" in pipeline.stage("learn").reads
    (training,) = plan(pipeline, 60).trainings
    assert training.divide_by([(9, 2), (0, 0), (7, 2)]) == 4
    assert Pipeline.from_canonical(pipeline.canonical()) == pipeline


def test_nobody_is_corrected_for_who_said_what_is_compared() -> None:
    """Preferences hold whoever said them: neither a default nor a setting weighs a pair's tokens."""
    assert "correction" not in Pipeline.from_dict(written(compute="bfloat16")).stage("learn").config
    with pytest.raises(SpecError, match="`dpo` is a loss of pairs"):
        Pipeline.from_dict(written(correction={"kind": "truncate"}))


def test_what_gives_no_pairs_is_told_with_what_does() -> None:
    """An advantage of every completion would be weighed as a preference that nobody has."""
    spec = written()
    stage(spec, "adv")["config"] = {"method": "grpo"}
    with pytest.raises(SpecError, match="learns from pairs, and `adv` gives every completion an advantage") as caught:
        Pipeline.from_dict(spec)
    assert caught.value.problems[0].hint == "write `method: pairs` in `adv`"


def test_the_reference_is_another_model_than_the_one_that_is_trained() -> None:
    spec = written()
    stage(spec, "ref")["model"] = "policy"
    with pytest.raises(SpecError, match="preferences are held near another model"):
        Pipeline.from_dict(spec)
