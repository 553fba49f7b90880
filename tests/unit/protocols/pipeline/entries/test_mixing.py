"""Shares of a mixture, as whole positions of a block."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow_protocols.pipeline import Pipeline, SpecError
from dflow_protocols.pipeline.entries.mixing import PARTS, parts_of_block
from tests.support.draws import draws
from tests.unit.protocols.written_specs import example, stage


@given(weights=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20))
@draws(200)
def test_a_block_is_dealt_out_whole_and_each_share_is_off_by_less_than_one(weights: list[float]) -> None:
    counts = parts_of_block(weights)
    assert sum(counts) == PARTS
    assert all(abs(count - weight / sum(weights) * PARTS) < 1 for count, weight in zip(counts, weights, strict=True))


def mixed(mix: dict[str, Any], **more: Any) -> Pipeline:
    """The example with a second data set of its kind, and a mixture of both that its stages read."""
    spec = example()
    spec["data"]["more"] = {"jsonl": "more.jsonl", "held_out": {"share": 0.1, "count": 500}}
    spec["data"]["both"] = {"mix": mix}
    spec["data"] |= more
    for name in ("warm", "roll"):
        stage(spec, name)["config"]["data"] = "both"
    stage(spec, "heldout")["config"]["data"] = "both.held_out"
    return Pipeline.from_dict(spec)


def test_a_mixture_holds_out_what_its_data_sets_do() -> None:
    """An evaluation that does not say how many asks all of them."""
    pipeline = mixed({"words": 2, "more": 1})
    assert pipeline.stage("heldout").config["count"] == 1500
    assert Pipeline.from_canonical(pipeline.canonical()) == pipeline


@pytest.mark.parametrize(
    ("mix", "path", "what"),
    [
        ({}, "data.both.mix", "`mix` names no data set"),
        ({"word": 1}, "data.both.mix.word", "there is no data `word`"),
        ({"words": 1, "both": 1}, "data.both.mix.both", "`both` is a mixture itself"),
        ({"words": 1e4, "more": 1}, "data.both.mix.more", "`more` has less than a thousandth of the weights"),
        ({"words": 0}, "data.both.mix.words", "`words` is 0"),
    ],
)
def test_a_mixture_that_cannot_be_drawn_from_is_told(mix: dict[str, Any], path: str, what: str) -> None:
    with pytest.raises(SpecError) as caught:
        mixed(mix)
    assert any(problem.path == path and what in problem.what for problem in caught.value.problems)


def test_a_mixture_of_which_nothing_is_held_out_cannot_be_evaluated_so() -> None:
    with pytest.raises(SpecError) as caught:
        mixed({"plain": 1}, plain={"jsonl": "plain.jsonl"})
    (problem,) = caught.value.problems
    assert "`both` holds nothing out" in problem.what
    assert problem.hint.endswith("to one of the data sets that it mixes")
