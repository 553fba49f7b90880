"""A filter's place in the graph: who heeds what it keeps."""

from __future__ import annotations

from typing import Any

from dflow_protocols.pipeline import Pipeline
from dflow_protocols.pipeline.doubts import doubts
from tests.unit.protocols.written_specs import example, stage

KEEP = {"id": "keep", "op": "filter", "config": {"function": "dflowd.operators.filter:pass_rate"}}


def with_filter(before: str, **more: Any) -> dict[str, Any]:
    spec = example()
    at = next(index for index, each in enumerate(spec["stages"]) if each["id"] == before)
    spec["stages"].insert(at, KEEP | more)
    return spec


def test_an_advantage_heeds_the_filters_of_its_rollout_unasked() -> None:
    """A filter that stands there and changes nothing would be found after a night."""
    spec = with_filter("adv")
    spec["stages"].insert(4, KEEP | {"id": "more"})
    pipeline = Pipeline.from_dict(spec)
    assert pipeline.stage("adv").reads == ["roll.rollout", "score.reward", "keep.kept", "more.kept"]
    assert Pipeline.from_canonical(pipeline.canonical()) == pipeline


def test_reads_that_name_a_filter_leave_the_others_out() -> None:
    spec = with_filter("adv")
    spec["stages"].insert(4, KEEP | {"id": "more"})
    stage(spec, "adv")["reads"] = ["more.kept"]
    assert Pipeline.from_dict(spec).stage("adv").reads == ["roll.rollout", "score.reward", "more.kept"]


def test_a_stage_of_ones_own_may_say_what_is_kept() -> None:
    """By completion, as what it writes has one number each."""
    own = {"id": "keep", "op": "mine:keep", "writes": ["kept"]}
    spec = with_filter("adv")
    spec["stages"][3] = own
    assert Pipeline.from_dict(spec).stage("adv").reads[-1] == "keep.kept"


def test_a_filter_that_nobody_heeds_is_doubted() -> None:
    (doubt,) = doubts(Pipeline.from_dict(with_filter("learn")))
    assert doubt.what == "nothing reads what `keep` keeps: it leaves nothing out"
