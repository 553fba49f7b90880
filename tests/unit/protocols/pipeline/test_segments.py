"""Completions in segments: `async.partial` becomes stages, and whoever reads a rollout reads the whole one."""

from __future__ import annotations

from typing import Any

import pytest

from dflow_protocols.pipeline import Pipeline, plan
from dflow_protocols.pipeline.doubts import doubts
from dflow_protocols.pipeline.grammar.problem import Problem, SpecError
from tests.unit.protocols.written_specs import example, stage


def loose(**said: Any) -> dict[str, Any]:
    """The example, with completions of six tokens at most."""
    spec: dict[str, Any] = example() | {"async": {"max_staleness": 2, "partial": True} | said}
    return spec | {"reproducibility": "replay"}


def problems_of(spec: dict[str, Any]) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as error:
        Pipeline.from_dict(spec)
    return error.value.problems


def test_a_completion_spans_as_many_versions_as_it_may() -> None:
    """Each segment is a call of its own, so it reads what is newest then, and another node may take it."""
    pipeline = Pipeline.from_dict(loose())
    (chain, *_) = plan(pipeline, 60).chains
    assert chain.stages == ("roll", "roll_2", "roll_3", "score", "adv")
    assert [chain.call(done) for done in (0, 1, 2)] == [("roll",), ("roll_2",), ("roll_3", "score", "adv")]
    assert pipeline.stage("roll").config["segment_tokens"] == pipeline.stage("roll_3").config["segment_tokens"] == 2
    assert pipeline.stage("learn").reads == ["roll_3.rollout", "adv.advantage"]
    assert Pipeline.from_canonical(pipeline.canonical()) == pipeline


def test_what_names_a_rollout_reads_the_whole_one() -> None:
    """The stage that is named has only its beginning."""
    spec = loose(segment_tokens=3)
    stage(spec, "score")["reads"] = ["roll.rollout"]
    assert Pipeline.from_dict(spec).stage("score").reads == ["roll_2.rollout"]


def test_what_fits_into_one_segment_is_not_cut() -> None:
    """Then it is the same pipeline as without."""
    whole = loose()
    del whole["async"]["partial"]
    assert Pipeline.from_dict(loose(segment_tokens=6)) == Pipeline.from_dict(whole)


@pytest.mark.parametrize(
    ("said", "config", "path", "what"),
    [
        ({"segment_tokens": 1}, {"max_tokens": 40}, "async.segment_tokens", "40 tokens are 40 segments of 1"),
        ({"partial": False, "segment_tokens": 2}, {}, "async.segment_tokens", "completions are not cut into segments"),
        ({}, {"stop": ["."]}, "stages[1].config.stop", "stage `roll` has `stop`, and `partial` cuts what it samples"),
    ],
)
def test_what_cannot_be_cut_is_told(said: dict[str, Any], config: dict[str, Any], path: str, what: str) -> None:
    """At submit, with its place."""
    spec = loose(**said)
    stage(spec, "roll")["config"] |= config
    (problem,) = problems_of(spec)
    assert problem.path == path
    assert problem.what.startswith(what)


def test_a_rollout_in_segments_has_all_of_them() -> None:
    """Else all completions would end where the first segment does, and be trained on so."""
    spec = example()
    stage(spec, "roll")["config"]["segment_tokens"] = 2
    (problem,) = problems_of(spec)
    assert (problem.path, problem.what) == (
        "stages[1].config.segment_tokens",
        "stage `roll`: 6 tokens are 3 segments of 2, not 1",
    )
    assert "async: {partial: true, segment_tokens: 2}" in problem.hint


@pytest.mark.parametrize("other", [{"temperature": 0.5}, {"segment_tokens": 3}, {"max_tokens": 8}])
def test_a_segment_goes_on_as_the_one_before_it_began(other: dict[str, Any]) -> None:
    """A canonical form that was changed by hand could mix policies within a completion."""
    spec = Pipeline.from_dict(loose()).to_dict()
    stage(spec, "roll_3")["config"] |= other
    assert "stage `roll_3` does not go on as `roll_2` began" in [problem.what for problem in problems_of(spec)]


def test_what_is_doubtful_of_a_rollout_is_told_once() -> None:
    """Of the stage that the user wrote, though each segment has its settings, and the last one is compared."""
    spec = loose()
    stage(spec, "roll")["config"] |= {"group": 1, "top_p": 0.9}
    assert [doubt.path for doubt in doubts(Pipeline.from_dict(spec))] == [
        "stages[1].config.top_p",
        "stages[1].config.group",
    ]


def test_a_name_that_a_segment_takes_is_told_where_it_was_written() -> None:
    """The spec has no other place for it."""
    spec = loose()
    stage(spec, "score")["id"] = "roll_2"
    (problem,) = problems_of(spec)
    assert problem.path == "stages[2].id"
    assert problem.what == "stage `roll_2` is called like a segment of `roll`, which is sampled in 3"


def test_a_name_that_leaves_no_room_for_those_of_segments_is_told() -> None:
    """Of the name that was written, not of one that nobody wrote."""
    spec = loose()
    stage(spec, "roll")["id"] = "a" * 30
    assert Pipeline.from_dict(spec).stage(f"{'a' * 30}_3")
    stage(spec, "a" * 30)["id"] = "a" * 31
    (problem,) = problems_of(spec)
    assert problem.path == "stages[1].id"
    assert problem.what.endswith(f"in segments, the last of which would be called `{'a' * 31}_3`")
    assert "(32 at most)" in problem.hint


OTHER = {"init": {"config": "spell_llama.json", "tokenizer": "others/"}}


@pytest.mark.parametrize(
    ("change", "path", "what"),
    [
        ({"roll": {"model": "polcy"}}, "stages[1].model", "stage `roll`: there is no model `polcy`"),
        (
            {"roll": {"engine": "vllm"}, "heldout": {"engine": "vllm", "model": "other"}},
            "stages[5].engine",
            "the engine `vllm` samples from model `policy` in stage `roll` and from `other` in `heldout`",
        ),
        (
            {"warm": {"engine": "vllm", "model": "other", "op": "evaluate", "config": {"data": "words.held_out"}}}
            | {"roll": {"engine": "vllm"}},
            "stages[1].engine",
            "the engine `vllm` samples from model `other` in stage `warm` and from `policy` in `roll`",
        ),
        (
            {"heldout": {"model": "other"}},
            "stages[5].config.data",
            "`heldout` and `warm` read `words`, which drops prompts, by different tokenizers",
        ),
    ],
)
def test_a_mistake_in_a_cut_rollouts_pipeline_is_told_once_where_it_was_written(
    change: dict[str, Any], path: str, what: str
) -> None:
    """The stages that it becomes move those behind it, and each of them has its settings."""
    spec = loose()
    spec["models"]["other"] = OTHER
    if path.endswith(".data"):
        spec["data"]["words"] |= {"max_prompt_tokens": 9, "long_prompts": "drop"}
    for name, keys in change.items():
        found = stage(spec, name)
        found |= keys
        if found["op"] == "evaluate":
            found["config"] = {**found["config"], "max_tokens": 6}
    (problem,) = problems_of(spec)
    assert problem.path == path
    assert problem.what.startswith(what)


@pytest.mark.parametrize("word", ["requires", "effect"])
def test_what_exact_forbids_is_told_where_it_was_written(word: str) -> None:
    """Once, and not for each segment, which have what the rollout requires."""
    spec = loose() | {"reproducibility": "exact"}
    told = {"requires": ("roll", ["gpu"]), "effect": ("score", "stochastic")}
    name, said = told[word]
    stage(spec, name)[word] = said
    if word == "requires":
        stage(spec, "roll")["engine"] = "vllm"
    else:
        stage(spec, "score").update({"op": "mine:judged", "writes": ["reward"], "config": {}})
    index = [each["id"] for each in spec["stages"]].index(name)
    assert [problem.path for problem in problems_of(spec)] == ["async", f"stages[{index}].{word}"]
