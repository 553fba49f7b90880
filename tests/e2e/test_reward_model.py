"""A reward model that is trained in the mesh and trains the policy: the same weights on one host and on two."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.support.dflow import answer, dflow
from tests.support.repository import EXAMPLES

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
    shutil.copytree(EXAMPLES / "spell_tokenizer", tmp_path / "spell_tokenizer")
    for name in ("spell_llama.json", "reward_model.yaml", "reward_model.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    settings = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    told = [
        answer("run", tmp_path / "reward_model.yaml", *settings, "--nodes", str(n), "--dir", tmp_path / f"m{n}")
        for n in (1, 2)
    ]
    assert [each["state"] for each in told] == ["done", "done"]
    assert told[0]["weights"] == told[1]["weights"]
    rows = [json.loads(line) for line in dflow("metrics", told[0]["run"], "--dir", tmp_path / "m1").splitlines()]
    assert [row["step"] for row in rows if "pair_accuracy" in row] == [3, 4, 5]
    assert [row["step"] for row in rows if "reward_mean/judged" in row] == [4, 5]
    dflow("export", told[1]["run"], tmp_path / "out", "--dir", tmp_path / "m2")
    from transformers import AutoModelForSequenceClassification

    judge: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out/judge")
    assert judge.score.weight.abs().max() > 0
