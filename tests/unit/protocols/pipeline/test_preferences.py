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


def from_rows(**learn: Any) -> dict[str, Any]:
    """Offline: the answers are the data's."""
    spec = written(**learn)
    spec["stages"] = [each for each in spec["stages"] if each["id"] not in ("roll", "score", "adv")]
    spec["data"]["pairs"] = {"jsonl": "pairs.jsonl", "answer": "chosen", "rejected": "rejected"}
    config = {"data": "pairs", "prompts": 32, "partitions": 4, "max_tokens": 6}
    spec["stages"].insert(1, {"id": "pairs", "op": "preferences", "model": "policy", "config": config})
    return spec


def test_pairs_of_rows_stand_in_the_place_of_a_policy_s_own() -> None:
    """Groups are pairs, of which training counts both; nothing else of the pipeline knows whose they are."""
    pipeline = Pipeline.from_dict(from_rows())
    assert set(pipeline.stage("learn").reads) == {"pairs.rollout", "pairs.advantage", "ref.logprob"}
    assert pipeline.stage("pairs").width == 2
    derived = plan(pipeline, pipeline.schedule.firsts[-2])
    (training,) = derived.trainings
    assert training.divide_by([(9, 2), (7, 2)]) == 4
    assert ("pairs", "ref") in [chain.stages for chain in derived.chains]
    assert Pipeline.from_canonical(pipeline.canonical()) == pipeline


def test_rows_with_one_answer_are_no_pairs() -> None:
    spec = from_rows()
    del spec["data"]["pairs"]["rejected"]
    with pytest.raises(SpecError, match="stage `pairs`: the rows of `pairs` have one answer each") as caught:
        Pipeline.from_dict(spec)
    assert caught.value.problems[0].hint == "name the key of the worse one: `rejected: KEY` in `data.pairs`"
    spec["data"]["pairs"] = {"reasoning_gym": "spell_backward"}
    with pytest.raises(SpecError, match="stage `pairs`: the rows of `pairs` have one answer each") as caught:
        Pipeline.from_dict(spec)
    assert caught.value.problems[0].hint == "take rows of a file, which say a worse one by `rejected`"


def test_what_nobody_sampled_is_learnt_from_as_pairs_only() -> None:
    """A ratio to who sampled would be one to nobody."""
    spec = from_rows()
    stage(spec, "learn")["config"]["loss"] = {"kind": "grpo"}
    with pytest.raises(SpecError, match="stage `learn` learns from `pairs`, whose answers nobody sampled"):
        Pipeline.from_dict(spec)
