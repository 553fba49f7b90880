"""Specs to test with, as a user's YAML parses."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from dflow_protocols.pipeline import Pipeline, SpecError
from tests.support.repository import EXAMPLES

EXAMPLE = EXAMPLES / "spell_backward.yaml"


def example() -> dict[str, Any]:
    """The newcomer's pipeline as written."""
    raw: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    return raw


def stage(spec: dict[str, Any], name: str) -> dict[str, Any]:
    """A stage of a spec, to be changed in place."""
    found: dict[str, Any] = next(stage for stage in spec["stages"] if stage["id"] == name)
    return found


def problem_of(spec: dict[str, Any]) -> tuple[str, str, str]:
    """What is wrong with a spec, which is one thing: the place, the words and the remedy."""
    with pytest.raises(SpecError) as caught:
        Pipeline.from_dict(spec)
    (problem,) = caught.value.problems
    return problem.path, problem.what, problem.hint
