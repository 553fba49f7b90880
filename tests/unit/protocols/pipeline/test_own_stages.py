"""Stages of one's own: what they read, and which of their outputs have a number for each token."""

from __future__ import annotations

from typing import Any

import pytest

from dflow_protocols.pipeline import Pipeline, SpecError
from dflow_protocols.pipeline.doubts import doubts
from dflow_protocols.pipeline.files import named_files
from tests.unit.protocols.written_specs import example, stage


def with_own(**more: Any) -> dict[str, Any]:
    """The example with a stage of one's own before what trains."""
    spec = example()
    spec["models"]["start"] = dict(spec["models"]["policy"])
    own = {"id": "own", "op": "own.py:f", "writes": ["x"], **more}
    spec["stages"][3:3] = [{"id": "ref", "op": "logprob", "model": "start"}, own]
    return spec


def test_a_star_reads_what_stages_before_it_made_of_the_same_completions() -> None:
    """And nothing of other chains, nor of what is still to come; the canonical form names each, so ids are bound."""
    pipeline = Pipeline.from_dict(with_own(reads=["*"]))
    assert pipeline.stage("own").reads == ["roll.rollout", "score.reward", "ref.logprob"]
    assert Pipeline.from_canonical(pipeline.canonical()) == pipeline
    named = with_own(reads=["roll.rollout", "score.reward", "ref.logprob"])
    assert Pipeline.from_dict(named).id == pipeline.id


def test_a_star_beside_a_name_reads_that_chain() -> None:
    """With two rollouts, which one is meant is for the user to say."""
    spec = with_own(reads=["roll.rollout", "*"])
    second = dict(stage(spec, "roll")) | {"id": "again"}
    spec["stages"].insert(2, second)
    stage(spec, "score")["reads"] = stage(spec, "ref")["reads"] = ["roll.rollout"]
    stage(spec, "adv")["reads"] = stage(spec, "learn")["reads"] = ["roll.rollout"]
    reads = Pipeline.from_dict(spec).stage("own").reads
    assert reads == ["roll.rollout", "score.reward", "ref.logprob"]


def test_only_a_stage_of_ones_own_reads_everything() -> None:
    spec = example()
    stage(spec, "adv")["reads"] = ["*"]
    with pytest.raises(SpecError) as caught:
        Pipeline.from_dict(spec)
    assert caught.value.problems[0].what == "stage `adv` reads `*`, but `advantage` has no use for `*`"


def test_outputs_by_token_are_in_the_canonical_form_only_where_there_are_some() -> None:
    """Pipelines without them keep their ids, and so their weights."""
    assert b"per_token" not in Pipeline.from_dict(with_own()).canonical()
    assert b"per_token" not in Pipeline.from_dict(with_own(per_token=[])).canonical()
    pipeline = Pipeline.from_dict(with_own(per_token=["x"]))
    assert Pipeline.from_canonical(pipeline.canonical()).stage("own").per_token == ["x"]


@pytest.mark.parametrize(
    ("writes", "names", "what"),
    [
        (["x"], ["x", "x"], "`per_token` has `x` twice"),
        (["x"], ["y"], "`per_token` has `y`, which is not among its `writes`"),
        (["reward"], ["reward"], "completions are compared by their `reward`, which is one number each"),
    ],
)
def test_outputs_by_token_are_such_as_can_be(writes: list[str], names: list[str], what: str) -> None:
    with pytest.raises(SpecError) as caught:
        Pipeline.from_dict(with_own(writes=writes, per_token=names))
    (problem,) = caught.value.problems
    assert problem.what == f"stage `own`: {what}"
    assert problem.path == f"stages[4].per_token[{len(names) - 1}]"


def test_an_advantage_that_nobody_reads_is_told() -> None:
    """It stands behind what trains, which reads the nearest one before it."""
    spec = with_own()
    spec["stages"].append({"id": "late", "op": "own.py:f", "writes": ["advantage"]})
    (doubt,) = doubts(Pipeline.from_dict(spec))
    assert doubt.what == "nothing reads the advantage of `late`: nothing is trained by it"


def test_a_built_in_stage_knows_what_it_writes_for_each_token() -> None:
    spec = example()
    stage(spec, "score")["per_token"] = ["reward"]
    with pytest.raises(SpecError) as caught:
        Pipeline.from_dict(spec)
    (problem,) = caught.value.problems
    assert problem.path == "stages[2].per_token"


@pytest.mark.parametrize(
    "config",
    [
        {"loss": 3, "optimizer": 3},
        {"loss": {"kind": 3}},
        {"function": "mean", "environment": {}},
        {"function": ["a:b"], "method": "a:b"},
    ],
)
def test_what_ones_own_function_is_given_may_have_any_name(config: dict[str, Any]) -> None:
    """A key that means something in one of our stages is a plain argument here: nothing is opened or run by it."""
    pipeline = Pipeline.from_dict(with_own(config=config))
    own = [named.name for named in named_files(pipeline) if named.path.startswith("stages[4]")]
    assert own == ["own.py:f"]
    assert not [doubt for doubt in doubts(pipeline) if doubt.path.startswith("stages[4].config")]
