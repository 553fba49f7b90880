"""generate: which prompts of the data a step's rounds have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dflow_protocols.pipeline import Pipeline
from dflowd.operators.generate import positions_of

from .partitions import partition, pipeline


def test_rounds_have_other_prompts_than_any_step_s_first_one(tmp_path: Path) -> None:
    """First rounds go through the data as steps without rounds do; so no prompt is passed over for rounds that are not
    due, and none is asked twice before all were asked."""
    spec: Pipeline = replace(pipeline(), steps=3)
    whole = replace(partition(tmp_path, spec, "roll", {}), end=4)  # two rounds of two prompts
    asked = [positions_of(replace(whole, step=step)) for step in range(3)]
    assert asked == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]
