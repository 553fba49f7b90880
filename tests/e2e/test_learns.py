"""The newcomer's run: a small transformer learns a task, and the gain is plain."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.dflow import answer, example_folder

GAIN = 0.3  # held-out accuracy after GRPO less that after the warm-up, for any seed
RUN_S = 1800.0  # four minutes where nothing is beside it


@pytest.mark.slow
@pytest.mark.timeout(RUN_S + 60)
def test_the_example_learns_to_spell_backward(tmp_path: Path) -> None:
    """What the README shows is what happens: held-out accuracy rises clearly by GRPO alone, and the checkpoint is one
    that transformers opens."""
    spec = example_folder(tmp_path / "specs")
    run = answer("run", spec, "--nodes", "3", "--dir", tmp_path / "mesh", timeout_s=RUN_S)
    assert run["state"] == "done"
    before, after = run["evals"][0]["accuracy"], run["evals"][-1]["accuracy"]
    print(f"accuracy {before:.3f} after the warm-up, {after:.3f} at the end, {run['wall_s']:.0f} s")
    assert after - before >= GAIN
    assert Path(run["plot"]).is_file()
    (checkpoint,) = run["checkpoint"].values()
    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(checkpoint).num_parameters() > 1_000_000
