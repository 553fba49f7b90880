"""A reward model that is trained in the mesh and trains the policy: the same weights on one host and on two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.dflow import dflow, example_folder, run_on_one_and_two, settings

SMALL = {
    "params.warmup": 2,
    "params.fit": 1,
    "params.grpo": 2,
    "stages.warm.config.batch": 32,
    "stages.roll.config.prompts": 16,
    "stages.roll.config.partitions": 8,
    "stages.heldout.config.count": 16,
}


def test_a_reward_model_is_trained_and_asked_in_one_run(tmp_path: Path) -> None:
    """It is a part of each version, and leaves the mesh as what transformers opens."""
    spec = example_folder(tmp_path).with_name("reward_model.yaml")
    told = run_on_one_and_two(spec, *settings(SMALL))
    rows = [json.loads(line) for line in dflow("metrics", told[0]["run"], "--dir", tmp_path / "m1").splitlines()]
    assert [row["step"] for row in rows if "pair_accuracy" in row] == [3, 4, 5]
    assert [row["step"] for row in rows if "reward_mean/judged" in row] == [4, 5]
    dflow("export", told[1]["run"], tmp_path / "out", "--dir", tmp_path / "m2")
    from transformers import AutoModelForSequenceClassification

    judge: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out/judge")
    assert judge.score.weight.abs().max() > 0
