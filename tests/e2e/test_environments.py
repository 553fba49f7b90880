"""A game of several turns, with real engines: the same weights on one host and on two, and games to read."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.dflow import answer, dflow
from tests.support.repository import EXAMPLES

SMALL = {
    "params.warmup": 4,
    "params.grpo": 2,
    "stages.warm.config.batch": 32,
    "stages.roll.config.prompts": 8,
    "stages.roll.config.group": 4,
    "stages.adv.config.drop_flat_groups": "false",
}


def test_a_game_gives_the_same_weights_on_one_host_and_on_two(tmp_path: Path) -> None:
    """Which conversations share a batch follows from the spec, and so does each token of them."""
    for name in ("environments", "spell_tokenizer"):
        shutil.copytree(EXAMPLES / name, tmp_path / name)
    shutil.copy(EXAMPLES / "spell_llama.json", tmp_path)
    settings = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    spec, told = tmp_path / "environments" / "guess.yaml", []
    for nodes in (1, 2):
        folder = tmp_path / f"m{nodes}"
        told.append(answer("run", spec, *settings, "--nodes", str(nodes), "--dir", folder))
    assert [each["state"] for each in told] == ["done", "done"]
    assert told[0]["weights"] == told[1]["weights"]
    samples = answer("samples", told[0]["run"], "--dir", tmp_path / "m1")["samples"]
    played = [each["turns"] for each in samples if len(each["turns"]) > 1]
    assert played
    assert all([turn["role"] for turn in talk[:2]] == ["assistant", "user"] for talk in played)
    assert "assistant: " in dflow("samples", told[0]["run"], "--dir", tmp_path / "m1")
