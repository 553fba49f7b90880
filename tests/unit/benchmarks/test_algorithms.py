"""The comparison of algorithms: what was run is not run again, and what is told is what was seen."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import algorithms
from benchmarks.algorithms import Curve, figures_of, measure
from benchmarks.figure import Skipped


def quiet(row: Any) -> None:
    pass


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Which runs were made, by algorithm and seed: none is, each is pretended."""
    made: list[tuple[str, int]] = []

    def run(overlay: Path, seed: int, warmup: int, steps: int) -> Curve:
        made.append((overlay.stem, seed))
        rewards = [[step, 0.1 * step + seed] for step in range(steps)]
        return Curve(overlay.stem, seed, warmup, steps, rewards, [[0, 0.2], [steps, 0.5 + 0.1 * seed]], 0.01, 3.0)

    monkeypatch.setattr(algorithms, "run", run)
    monkeypatch.setattr(algorithms, "need_engine", lambda: None)
    return made


@pytest.fixture
def compared(tmp_path: Path) -> Callable[..., Any]:
    return lambda *seeds: measure(quiet, names=("rloo", "grpo"), seeds=seeds, steps=4, out=str(tmp_path))


def test_a_run_that_is_there_is_not_made_again(runs: list[tuple[str, int]], compared: Callable[..., Any]) -> None:
    """An hour of runs is interrupted now and then."""
    compared(0)
    compared(0, 1)
    assert runs == [("rloo", 0), ("grpo", 0), ("rloo", 1), ("grpo", 1)]


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
        measure(quiet, names=("grpoo",), out=str(tmp_path))
    assert runs == []


def test_a_step_of_several_updates_is_one_point_and_its_clips_are_those_of_all() -> None:
    """Two updates of a policy and two of its critic a step: PPO's curve would be drawn four times as long, and its clip
    would seem to cut nothing."""
    clip = {"clip_frac_low": 0.0, "clip_frac_high": 0.0}
    step = [{"reward_mean": 0.5, **clip}, {**clip, "clip_frac_high": 0.2}, {"value_loss": 1.0}, {"value_loss": 1.0}]
    rows = [{"step": number + 1, **row} for number, row in enumerate([{"loss": 3.0}, *step, *step])]
    assert figures_of(rows) == ([[1, 0.5], [2, 0.5]], 0.1)
