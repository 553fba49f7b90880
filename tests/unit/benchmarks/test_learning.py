"""Runs that are compared by what they learn: what was run is not run again, and what is told is what was seen."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import algorithms, learning, staleness
from benchmarks.figure import Skipped
from benchmarks.learning import Curve, Variant, figures_of


def quiet(row: Any) -> None:
    pass


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Which runs were made, by variant and seed: none is, each is pretended."""
    made: list[tuple[str, int]] = []

    def run(variant: Variant, seed: int, warmup: int, steps: int) -> Curve:
        made.append((variant.name, seed))
        rewards = [[step, 0.1 * step + seed] for step in range(steps)]
        return Curve(variant.name, seed, warmup, steps, rewards, [[0, 0.2], [steps, 0.5 + 0.1 * seed]], 0.01, 3.0)

    monkeypatch.setattr(learning, "run", run)
    monkeypatch.setattr(learning, "need_engine", lambda: None)
    return made


@pytest.fixture
def compared(tmp_path: Path) -> Callable[..., Any]:
    return lambda *seeds: algorithms.measure(quiet, names=("rloo", "grpo"), seeds=seeds, steps=4, out=str(tmp_path))


def test_a_run_that_is_there_is_not_made_again(runs: list[tuple[str, int]], compared: Callable[..., Any]) -> None:
    """An hour of runs is interrupted now and then."""
    compared(0)
    compared(0, 1)
    assert runs == [("rloo", 0), ("grpo", 0), ("rloo", 1), ("grpo", 1)]


def test_a_run_of_other_nodes_is_another_run(runs: list[tuple[str, int]], tmp_path: Path) -> None:
    """What rollouts are behind depends on how many daemons there are."""
    for nodes in (2, 3, 3):
        staleness.measure(quiet, lags=(), nodes=nodes, seeds=(0,), steps=4, out=str(tmp_path))
    assert runs == [("grpo_async_4", 0)] * 2


def test_curves_and_means_over_the_seeds_are_written_down(
    runs: list[tuple[str, int]], compared: Callable[..., Any], tmp_path: Path
) -> None:
    figures = compared(0, 1)
    assert [(each.figure, each.ours, each.anchor_value) for each in figures] == [
        ("rloo: held-out accuracy", 0.55, 0.2),
        ("grpo: held-out accuracy", 0.55, 0.2),
    ]
    rows = json.loads((tmp_path / "summary.json").read_text())
    assert [row["after_sd"] for row in rows] == [0.0707, 0.0707]
    written = list(csv.DictReader((tmp_path / "curves.csv").open()))
    assert len(written) == 2 * 2 * (4 + 2)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_name_that_has_no_overlay_is_told(runs: list[tuple[str, int]], tmp_path: Path) -> None:
    with pytest.raises(Skipped, match="no algorithm `grpoo`"):
        algorithms.measure(quiet, names=("grpoo",), out=str(tmp_path))
    assert runs == []


def test_a_step_of_several_updates_is_one_point_and_its_clips_are_those_of_all() -> None:
    """Two updates of a policy and two of its critic a step: PPO's curve would be drawn four times as long, and its clip
    would seem to cut nothing."""
    clip = {"clip_frac_low": 0.0, "clip_frac_high": 0.0}
    step = [{"reward_mean": 0.5, **clip}, {**clip, "clip_frac_high": 0.2}, {"value_loss": 1.0}, {"value_loss": 1.0}]
    rows = [{"step": number + 1, **row} for number, row in enumerate([{"loss": 3.0}, *step, *step])]
    figures = figures_of(rows)
    assert (figures["rewards"], figures["clipped"]) == ([[1, 0.5], [2, 0.5]], 0.1)


def test_how_far_rollouts_were_behind_is_their_mean_where_it_is_known() -> None:
    """With a lag all of a step are of one version, and no mean is told; a warm-up has none at all."""
    lagging = {"version_gap_max": 2.0, "version_gap_min": 2.0}
    loose = {"version_gap_max": 3.0, "version_gap_min": 0.0, "version_gap_mean": 1.0}
    found = [figures_of([{"loss": 3.0}, row]) for row in ({}, lagging, loose)]
    assert [(each["gap"], each["gap_max"]) for each in found] == [(0.0, 0.0), (2.0, 2.0), (1.0, 3.0)]


def test_rollouts_of_each_staleness_are_held_against_the_newest(runs: list[tuple[str, int]], tmp_path: Path) -> None:
    figures = staleness.measure(quiet, lags=(0, 2), staleness=(4,), seeds=(0,), steps=4, out=str(tmp_path))
    assert [name for name, _ in runs] == ["grpo_lag_0", "grpo_lag_2", "grpo_async_4"]
    assert {(each.anchor, each.anchor_value) for each in figures} == {("grpo_lag_0", 0.5)}
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_without_rewards_is_summed_up_by_what_it_has(tmp_path: Path) -> None:
    """Preferences of rows are learnt from without any."""
    curves = [Curve("dpo", seed, 4, 4, [], [[0, 0.2], [4, 0.5]], 0.0, 3.0) for seed in (0, 1)]
    (row,) = learning.publish(tmp_path, curves, algorithms.draw)
    assert (row["before"], row["after"]) == (0.2, 0.5)
    assert (row["reward_begin"], row["reward_end"], row["reward_end_sd"]) == (None, None, None)
