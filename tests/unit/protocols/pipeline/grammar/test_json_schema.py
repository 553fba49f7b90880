"""The JSON Schema: what it takes and refuses is what validation takes and refuses, as far as one value goes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from dflow_protocols.pipeline import Pipeline
from dflow_protocols.pipeline.grammar.layout import PLAN_VERSION
from dflow_protocols.pipeline.grammar.schema import make_schema
from tests.support.repository import EXAMPLES
from tests.unit.protocols.pipeline.grammar.schema_check import fits
from tests.unit.protocols.written_specs import example, stage

SCHEMA = make_schema()


def test_the_example_fits_as_written_and_in_full() -> None:
    """Number texts and expressions, which YAML leaves as text, are part of the format."""
    assert fits(SCHEMA, example())
    assert fits(SCHEMA, json.loads(Pipeline.from_dict(example()).canonical()))


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.update(modles={}),
        lambda s: s.pop("steps"),
        lambda s: s.update(steps=0),
        lambda s: s.update(name="two words"),
        lambda s: s.update(params={"a b": 1}),
        lambda s: s.update(checkpoint={"every": -1}),
        lambda s: s.update(stages=[]),
        lambda s: s["models"]["policy"].update(init={"config": "x"}),
        lambda s: s["data"]["words"]["held_out"].update(share=1),
        lambda s: stage(s, "roll").update(op="generat"),
        lambda s: stage(s, "roll").pop("model"),
        lambda s: stage(s, "roll").update(id="Roll"),
        lambda s: stage(s, "score").update(model="policy"),
        lambda s: stage(s, "roll")["config"].update(promts=3),
        lambda s: stage(s, "roll")["config"].update(prompts=[96]),
        lambda s: stage(s, "roll")["config"].update(data="words.held_out"),
        lambda s: stage(s, "learn")["config"]["loss"].update(clip=[0.2]),
        lambda s: stage(s, "learn")["config"].update(optimizer={"adam": {}}),
        lambda s: stage(s, "adv")["config"].update(drop_flat_groups=1),
        lambda s: s["stages"].append({"id": "own", "op": "mine:f"}),
    ],
)
def test_a_mistake_does_not_fit(change: Callable[[dict[str, Any]], Any]) -> None:
    """An editor underlines it before anything is submitted."""
    spec = example()
    change(spec)
    assert not fits(SCHEMA, spec)


def test_the_schema_is_plain_json() -> None:
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


@pytest.mark.parametrize("name", ["spell_backward", "smollm2", "gsm8k/qwen", "own_reward/pipeline"])
def test_every_example_fits(name: str) -> None:
    """The other files there are overlays, and no pipelines by themselves."""
    assert fits(SCHEMA, yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text()))


def test_the_schema_is_one_by_its_own_rules_and_says_of_what_version() -> None:
    """A tool that keeps several takes the one for a document's `plan_version`."""
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$id"] == f"urn:dflowd:pipeline:{PLAN_VERSION}"
    assert not fits(SCHEMA, example() | {"plan_version": PLAN_VERSION + 1})


def test_the_schema_marks_what_the_canonical_form_leaves_out() -> None:
    """Whoever makes canonical forms by another program reads it there."""
    (advantage, *_) = [each for each in SCHEMA["properties"]["stages"]["items"]["anyOf"] if _op(each) == "advantage"]
    settings = advantage["properties"]["config"]["anyOf"][0]["properties"]
    assert "x-unwritten" in settings["ddof"]
    assert "x-unwritten" not in settings["scale"]


def _op(stage: dict[str, Any]) -> str:
    return str(stage["properties"]["op"].get("const", ""))
