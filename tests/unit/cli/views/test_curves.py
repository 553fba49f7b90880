"""The picture that a run leaves behind: its panels, its colours, and what it says of itself."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from dflow_cli.runs.outcome import read_outcome
from dflow_cli.views.curves import Curves, draw_figure, title_of, write_png
from tests.unit.cli.fakedaemon import told_run

STAGES = ("warm", "roll", "score", "adv", "learn", "check")


def rows() -> list[dict[str, Any]]:
    """Two steps of warm-up, then two of GRPO."""
    warm = {
        "loss": 2.0,
        "entropy": 1.5,
        "grad_norm": 0.4,
        "learning_rate": 1e-3,
        "seconds": {"warm": 1.0, "warm.apply": 0.1},
    }
    seconds = {"adv": 0.1, "learn": 0.5, "learn.apply": 0.1, "roll": 2.0, "save": 0.2, "score": 0.1}
    learn = {"loss": 0.01, "entropy": 0.7, "grad_norm": 0.2, "learning_rate": 3e-4, "seconds": seconds}
    learn |= {"reward_mean": 0.25, "reward_std": 0.4, "reward_min": 0.0, "reward_max": 1.0, "tokens_per_s": 900.0}
    learn |= {"completion_length_mean": 4.0, "completion_length_max": 6.0, "mismatch_kl": 1e-9}
    return [{"step": step, "time_s": 60.0 * step, **(warm if step <= 2 else learn)} for step in range(1, 5)]


def curves(**changes: Any) -> Curves:
    return Curves(**{"rows": rows(), "evals": [], "title": "toy", "stages": STAGES} | changes)


def panels(shown: Curves) -> dict[str, Any]:
    return {axes.get_title(): axes for axes in draw_figure(shown).axes if axes.axison}


def test_a_run_shows_what_it_earned_and_how_it_was_trained() -> None:
    """What it has, and no empty frames for what it has not; two programs that agree make no KL of their own."""
    assert list(panels(curves())) == [
        "reward: mean, deviation, lowest to highest",
        "loss of `warm`",
        "loss of `learn`",
        "entropy, nats a token",
        "completion length, tokens: mean and longest",
        "gradient norm, before it is clipped",
        "learning rate",
        "tokens a second",
        "compute seconds of a step by stage, all nodes",
    ]
    asked = [{"stage": "check", "step": 2, "accuracy": 0.5}]
    apart = [row | ({"mismatch_kl": 0.02, "kl": 0.1} if row["step"] > 2 else {}) for row in rows()]
    more = set(panels(curves(evals=asked, rows=apart))) - set(panels(curves()))
    assert more == {
        "held-out accuracy",
        "KL to the reference, nats a token",
        "KL of sampler and training, nats a token",
    }


def test_a_stage_has_one_colour_by_its_place_in_the_pipeline() -> None:
    """In every panel, whatever else the run did: by name a stage that joins would change all others' colours."""
    shown = curves()
    (line,) = panels(shown)["loss of `learn`"].lines
    assert line.get_color() == shown.colour("learn")
    without_adv = [row | {"seconds": {name: 1.0 for name in row["seconds"] if name != "adv"}} for row in rows()]
    assert curves(rows=without_adv).colour("learn") == shown.colour("learn")
    colours = [shown.colour(stage) for stage in STAGES]
    assert len(set(colours)) == len(STAGES)
    assert shown.colour("learn.apply") not in colours
    assert curves(stages=()).colour("learn") != curves(stages=()).colour(
        "roll"
    )  # of results that do not tell the order


def test_bands_of_the_time_lie_in_the_pipelines_order() -> None:
    """The first stage at the bottom, what belongs to none on top."""
    (legend,) = [axes.get_legend() for axes in panels(curves()).values() if axes.get_title().startswith("compute")]
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["warm", "warm.apply", "roll", "score", "adv", "learn", "learn.apply", "save"]


def test_the_title_says_which_run_when_where_and_what_came_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found a month later, a picture without these is worth nothing."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    outcome = read_outcome(told_run(wall_s=180.0))
    assert title_of(outcome, rows()).splitlines() == [
        "toy   3f9c12ab   done, step 6 of 6",
        "3 daemons   1970-01-01 00:01 to 00:04 (3 min)",
        "accuracy 0.400 before, 0.950 after  (held out)",
    ]
    without = read_outcome(told_run(evals=[]))
    assert title_of(without, rows()).splitlines()[-1] == "reward 0.250 at first, 0.250 at the end"


@pytest.mark.parametrize("shown", [curves(), curves(stages=()), curves(rows=rows()[:1]), curves(rows=[{"step": 0}])])
def test_a_picture_comes_out_of_whatever_there_is(shown: Curves, tmp_path: Path) -> None:
    """Also of a run that was stopped at its first step."""
    write_png(shown, tmp_path / "plot.png")
    assert os.stat(tmp_path / "plot.png").st_size > 10_000
