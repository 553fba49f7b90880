"""The canonical form: one for all ways to write a pipeline, and nothing else is taken for it."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dflow_protocols.names import is_what
from dflow_protocols.pipeline import Pipeline, SpecError, Stage
from dflow_protocols.pipeline.grammar.shape import Number, Reader, Section
from tests.support.draws import draws
from tests.unit.protocols.written_specs import example, stage


def shuffled(value: Any, draw: st.DrawFn) -> Any:
    """The same mapping with its keys in another order, at every depth."""
    if isinstance(value, dict):
        keys = draw(st.permutations(sorted(value)))
        return {key: shuffled(value[key], draw) for key in keys}
    return [shuffled(item, draw) for item in value] if isinstance(value, list) else value


@st.composite
def rewritten_examples(draw: st.DrawFn) -> dict[str, Any]:
    spec: dict[str, Any] = shuffled(example(), draw)
    if draw(st.booleans()):
        spec["params"] = {"warmup": 50, "a": 25, "grpo": "180.0"}
        spec["steps"] = "grpo + 2 * a"
        stage(spec, "warm")["when"] = "step < a + a"
    if draw(st.booleans()):
        stage(spec, "score")["reads"] = [draw(st.sampled_from(["rollout", "roll.rollout"]))]
    if draw(st.booleans()):
        stage(spec, "roll")["config"]["temperature"] = draw(st.sampled_from([1, "1", "1e0"]))
    if draw(st.booleans()):
        stage(spec, "adv").update(every=1, when=None, after=[], scope="group", effect="pure")
    return spec


@given(spec=rewritten_examples())
@settings(max_examples=30, deadline=None)
def test_all_ways_to_write_a_pipeline_share_one_id(spec: dict[str, Any]) -> None:
    """The id seeds everything: the same pipeline has to repeat the same weights, however it was spelt."""
    assert Pipeline.from_dict(spec).id == Pipeline.from_dict(example()).id


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [("roll", "temperature", 0.9), ("learn", "clip_norm", 2.0), ("adv", "scale", "none"), ("warm", "batch", 127)],
)
def test_a_pipeline_that_computes_something_else_has_another_id(name: str, key: str, value: Any) -> None:
    """Else two runs would share seeds and results that differ."""
    spec = example()
    stage(spec, name)["config"][key] = value
    assert Pipeline.from_dict(spec).id != Pipeline.from_dict(example()).id


def test_a_key_that_came_later_is_written_only_where_it_says_something() -> None:
    """Whoever does not use it keeps the id, and so the seeds and weights, of before."""
    table = Section("", {"old": Number("", 1), "new": Number("", 0, unwritten=True)})
    assert Reader({}).read(table, {}, "") == Reader({}).read(table, {"new": 0}, "") == {"old": 1}
    assert Reader({}).read(table, {"new": 2}, "") == {"old": 1, "new": 2}


@pytest.mark.parametrize(
    ("key", "default", "other"),
    [
        ("compute", "float32", "bfloat16"),
        ("gradient", "float32", "bfloat16"),
        ("gradient_checkpointing", None, True),
        ("on_nonfinite", "fail", "skip"),
    ],
)
def test_a_training_that_leaves_a_later_key_alone_keeps_its_id(key: str, default: Any, other: Any) -> None:
    """Nor does it matter whether the default is written."""
    ids = []
    for value in (None, default, other):
        spec = example()
        stage(spec, "learn")["config"] |= {} if value is None else {key: value}
        ids.append(Pipeline.from_dict(spec).id)
    assert ids[0] == ids[1] != ids[2]
    assert key.encode() not in Pipeline.from_dict(example()).canonical()


def test_null_takes_a_way_of_giving_a_model_away() -> None:
    """An overlay that names a folder is laid over a spec that draws its weights."""
    by_folder, over = example(), example()
    by_folder["models"]["policy"] = {"path": "model/"}
    over["models"]["policy"] |= {"path": "model/", "init": None}
    assert Pipeline.from_dict(over).id == Pipeline.from_dict(by_folder).id


def test_adapters_are_of_a_pipeline_that_asks_for_them_alone() -> None:
    """Specs from before there were any keep their ids; and what versions hold follows from the spec."""
    plain, adapted = Pipeline.from_dict(example()), example()
    assert b"lora" not in plain.canonical()
    adapted["models"]["policy"]["lora"] = {"rank": "4 * 2", "alpha": 16}
    found = Pipeline.from_dict(adapted)
    assert found.models["policy"]["lora"] == {"rank": 8, "alpha": 16.0, "targets": None, "dropout": 0.0}
    assert Pipeline.from_canonical(found.canonical()) == found
    assert (plain.bases, found.bases) == ((), ("policy",))
    assert found.id != plain.id


def test_the_canonical_form_reads_back_as_the_same_pipeline() -> None:
    """It is what travels: every node has to see the pipeline that was submitted."""
    pipeline = Pipeline.from_dict(example())
    again = Pipeline.from_canonical(pipeline.canonical())
    assert again == pipeline
    assert again.id == pipeline.id
    assert is_what(again.id)
    assert Pipeline.from_dict(pipeline.to_dict()) == pipeline


def test_who_changes_a_pipelines_mapping_changes_no_pipeline() -> None:
    """It is how one pipeline is made of another, and the first goes on being read by whoever has it."""
    pipeline = Pipeline.from_dict(example())
    raw, told = pipeline.to_dict(), pipeline.stage("learn").to_dict()
    before = pipeline.id, deepcopy(raw)
    raw["models"]["policy"]["path"] = "another"
    for each in (*raw["stages"], told):
        each["config"]["epochs"] = 2
    again = Pipeline.from_dict(pipeline.to_dict())
    assert (again.id, again.to_dict()) == before


@pytest.mark.parametrize("change", [b" ", b"x"])
def test_bytes_that_are_not_canonical_are_refused(change: bytes) -> None:
    """Two byte strings for one pipeline would give one run two ids."""
    with pytest.raises(SpecError):
        Pipeline.from_canonical(Pipeline.from_dict(example()).canonical() + change)


@given(
    junk=st.one_of(
        st.binary(max_size=60),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["name", "steps", "stages", "models", "id", "op", "config", "params", "x"]),
                    inner,
                    max_size=5,
                )
            ),
        ).map(lambda value: json.dumps(value).encode()),
    )
)
@draws(200)
def test_bytes_from_a_stranger_raise_nothing_but_a_spec_error(junk: bytes) -> None:
    """A daemon reads specs from the wire."""
    with pytest.raises(SpecError):
        Pipeline.from_canonical(junk)


def test_the_python_api_says_the_same_as_yaml() -> None:
    """One format, whichever way it is written."""
    spec = example()
    stages = [Stage(**written) for written in spec.pop("stages")]
    assert Pipeline(stages=stages, **spec) == Pipeline.from_dict(example())


def test_a_pipeline_made_in_python_is_checked_as_it_is_made() -> None:
    """A mistake shows where it was made, not at submit."""
    with pytest.raises(SpecError) as caught:
        Pipeline(name="p", steps=1, models={"m": {"path": "m"}}, stages=[Stage("a", "generat", "m")])
    assert caught.value.problems[0].path == "stages[0].op"


def test_digests_of_files_are_part_of_the_id() -> None:
    """A changed tokenizer or reward function is another pipeline."""
    pipeline = Pipeline.from_dict(example())
    bound = pipeline.with_digests({"models.policy.init.config": "0" * 64})
    assert bound.id != pipeline.id
    assert Pipeline.from_canonical(bound.canonical()) == bound


def stops(sampled: list[str] | None, evaluated: list[str] | None) -> list[str] | None:
    """The `stop` of the evaluation in canonical form; None: it is not written."""
    spec = example()
    for name, texts in (("roll", sampled), ("heldout", evaluated)):
        stage(spec, name)["config"].update({} if texts is None else {"stop": texts})
    pipeline = Pipeline.from_dict(spec)
    assert Pipeline.from_canonical(pipeline.canonical()) == pipeline
    found: list[str] | None = pipeline.stage("heldout").config.get("stop")
    return found


def test_an_evaluation_stops_where_the_rollout_does_unless_it_says_otherwise() -> None:
    """What is evaluated is what is trained. A spec without stop texts keeps the id that it had."""
    assert stops(["a"], None) == stops(None, ["a"]) == ["a"]
    assert stops(["a"], []) == []
    assert stops(None, None) is stops(None, []) is stops([], None) is None


def test_rollouts_that_stop_elsewhere_leave_the_evaluation_to_say_where() -> None:
    spec = example()
    spec["stages"].insert(1, stage(spec, "roll") | {"id": "other", "when": "step < 0"})
    stage(spec, "other")["config"] = stage(spec, "roll")["config"] | {"stop": ["a"]}
    stage(spec, "score")["reads"] = ["roll.rollout"]
    with pytest.raises(SpecError) as caught:
        Pipeline.from_dict(spec)
    assert [problem.path for problem in caught.value.problems] == ["stages[6].config.stop"]


def test_every_default_is_filled_in() -> None:
    """`dflow plan --resolved` and the engines need no second table of defaults."""
    pipeline = Pipeline.from_dict(example())
    assert pipeline.steps == 230
    assert pipeline.params == {}
    assert pipeline.trainable == ("policy",)
    assert pipeline.stage("warm").when == "step < 50"
    assert pipeline.stage("adv").reads == ["roll.rollout", "score.reward"]
    assert pipeline.stage("learn").reads == ["roll.rollout", "adv.advantage"]
    heldout = pipeline.stage("heldout").config
    assert (heldout["count"], heldout["partitions"], heldout["max_tokens"]) == (1000, 8, 6)
    assert heldout["function"] == "dflowd.operators.reward:exact_match"
    assert pipeline.stage("learn").config["optimizer"]["adamw"]["lr"] == 3e-4


def test_leaves_default_to_the_largest_power_of_two_that_partitions_feed() -> None:
    """12 partitions keep 8 leaves busy, not 16."""
    spec = example()
    del stage(spec, "learn")["config"]["leaves"]
    assert Pipeline.from_dict(spec).stage("learn").config["leaves"] == 8


def test_a_users_own_stage_always_reads_a_rollout() -> None:
    """Its function is given completions, beside what it says it reads."""
    spec = example()
    spec["stages"].append({"id": "own", "op": "mine:f", "reads": ["reward"], "writes": ["x"]})
    assert Pipeline.from_dict(spec).stage("own").reads == ["roll.rollout", "score.reward"]
