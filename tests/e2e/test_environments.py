"""A game of several turns, with real engines: the same weights on one host and on two, and games to read."""

from __future__ import annotations

from pathlib import Path

from tests.support.dflow import answer, dflow, example_folder, run_on_one_and_two, settings

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
    spec = example_folder(tmp_path).parent / "environments" / "guess.yaml"
    told = run_on_one_and_two(spec, *settings(SMALL))
    samples = answer("samples", told[0]["run"], "--dir", spec.parent / "m1")["samples"]
    played = [each["turns"] for each in samples if len(each["turns"]) > 1]
    assert played
    assert all([turn["role"] for turn in talk[:2]] == ["assistant", "user"] for talk in played)
    assert "assistant: " in dflow("samples", told[0]["run"], "--dir", spec.parent / "m1")
