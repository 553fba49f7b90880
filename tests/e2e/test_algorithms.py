"""Every algorithm that has a name trains, from the first line that a user types to weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.dflow import answer, example_folder
from tests.support.repository import EXAMPLES

OVERLAYS = sorted((EXAMPLES / "algorithms").glob("*.yaml"))
SMALL = ("params.warmup=2", "params.grpo=2", "data.words.held_out.count=20")
BEGINNING = {"dpo": "pairs"}  # what samples, or takes its place


@pytest.mark.slow
@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_an_algorithm_by_its_name_runs_to_its_weights(overlay: Path, tmp_path: Path) -> None:
    """What the overlays' unit test plans is what engines can compute."""
    spec = example_folder(tmp_path / "specs")
    beginning = BEGINNING.get(overlay.stem, "roll")
    sets = [f"--set={value}" for value in (*SMALL, f"stages.{beginning}.config.prompts=24")]
    run = answer("run", spec, overlay, *sets, "--nodes", "1", "--dir", tmp_path / "mesh")
    assert (run["state"], run["step"]) == ("done", 4)
    assert run["weights"]
