"""A policy that is held near where it came from: a frozen reference scores its tokens, on any number of nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.dflow import dflow, example_folder, run_on_one_and_two


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small example with rewards that have spread, a copy of the first policy as reference, and KL."""
    example = example_folder(tmp_path_factory.mktemp("specs"))
    raw: dict[str, Any] = yaml.safe_load(example.read_text())
    raw["models"]["reference"] = raw["models"]["policy"]
    learn = next(index for index, stage in enumerate(raw["stages"]) if stage["id"] == "learn")
    raw["stages"][learn]["config"]["loss"]["kl"] = 0.05
    raw["stages"].insert(learn, {"id": "ref", "op": "logprob", "model": "reference"})
    path = example.with_name("near.yaml")
    path.write_text(json.dumps(raw))
    return path


@pytest.mark.slow
def test_weights_under_kl_to_a_reference_do_not_depend_on_how_many_nodes_train(spec: Path) -> None:
    """The reference is loaded by every engine for itself: all of them must score alike, and the term must count."""
    whole = run_on_one_and_two(spec, spec.with_name("early.yaml"))
    lines = dflow("metrics", whole[1]["run"], "--dir", spec.parent / "m2").splitlines()
    divergences = [row["kl"] for row in map(json.loads, lines) if "kl" in row]
    assert len(divergences) == 3
    assert all(divergence > 0 for divergence in divergences)
