"""The JSON Schema: what it takes and refuses is what validation takes and refuses, as far as one value goes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dflow_protocols.pipeline import Pipeline
from dflow_protocols.pipeline.grammar.schema import make_schema
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
