"""The picture of a run on terminals of all sizes."""

from __future__ import annotations

import runpy
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from dflow_cli.runs.follow import Picture
from dflow_cli.views.screen import render
from tests.support.repository import ROOT
from tests.unit.cli.views.test_cli_views import picture

SIZES = [(200, 50), (80, 24), (60, 15)]


def drawn(shown: Picture, width: int = 90, height: int = 40) -> str:
    """What the terminal shows, without the ends of lines that are blank."""
    console = Console(width=width, height=height, force_terminal=False)
    with console.capture() as capture:
        console.print(render(shown, width, height))
    return capture.get()


def large(nodes: int, **changes: Any) -> Picture:
    """Late in a run of many steps, stages, nodes and samples."""
    shown = picture(state="active", step=400, steps=500, wall_s=4000.0, **changes)
    seconds = {
        "adv": 0.0,
        "check": 0.5,
        "learn": 0.8,
        "learn.apply": 0.1,
        "learn.reduce": 0.2,
        "roll": 3.14,
        "score": 0.1,
    }
    for step in range(1, 401):
        row = {"reward_mean": step / 400, "loss": 1 / step, "entropy": 0.3, "grad_norm": 0.1, "tokens_per_s": 12345.0}
        shown.rows[step] = {"step": step, "step_s": 2.25, "seconds": seconds, **row}
    shown.kinds = ("learn",) * 500
    shown.samples = [
        {"step": 399, "prompt": "spell\nbackward " * 9, "completion": "x" * 300, "answer": "y" * 40, "reward": 0.5}
    ] * 12
    shown.members = [{"name": f"n{number}", "state": "alive"} for number in range(nodes)]
    shown.doing = {f"n{number}": ["roll"] for number in range(nodes)}
    return shown


@pytest.mark.parametrize("nodes", [3, 40])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_picture_fills_its_terminal_and_never_more(width: int, height: int, nodes: int) -> None:
    """A line too much breaks the redrawing in place; a line too little is room that nobody sees anything in."""
    lines = drawn(large(nodes), width, height).splitlines()
    assert [len(line) for line in lines] == [width] * height


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_what_matters_is_there_at_any_size(width: int, height: int) -> None:
    """How far, how long, which stage takes the time, who lives, whether it learns."""
    text = drawn(large(3), width, height)
    for part in (
        "step 400 of 500",
        "1 h 7 min so far, about 4 min left",
        "roll",
        "3.1 s",
        "alive",
        "reward 1.000",
        "accuracy",
    ):
        assert part in text
    assert "0.950 at step 6" in text


def test_a_drained_node_is_told_from_one_that_works() -> None:
    """Else it looks like one that stands still."""
    shown = large(2)
    shown.members[0]["is_drained"] = True
    assert "drained" in drawn(shown, 80, 24)


def test_nodes_stand_below_the_stages_and_these_in_the_pipelines_order() -> None:
    """A step is read from above."""
    lines = drawn(large(3), 80, 24).splitlines()
    starts = ("roll ", "score ", "adv ", "learn ", "check ", "node ", "n0 ", "n2 ")
    places = [next(index for index, line in enumerate(lines) if line.startswith(f"│ {start}")) for start in starts]
    assert places == sorted(places)


def test_the_picture_shows_mesh_stages_reward_and_samples() -> None:
    """Texts of users are shown as they are, brackets included, and what breaks a line is escaped."""
    shown = picture(state="active", step=5)
    shown.samples[0]["completion"] += "\n\x1b[2J"
    text = drawn(shown)
    for part in ("toy", "step 5 of 6", "n0", "alive", "roll, score", "dead", "learn", "reward 1.000"):
        assert part in text
    assert "spell [cat]" in text
    assert r"tac [/]\n\x1b[2J" in text
    assert "accuracy  0.400 at step 2, 0.950 at step 6" in text


def test_a_run_without_a_first_step_is_drawn() -> None:
    """Version 0 is still being made."""
    shown = picture(state="active", step=0, evals=[])
    shown.rows, shown.samples, shown.members, shown.doing = {}, [], [], {}
    assert "step 0 of 6" in drawn(shown)


@pytest.mark.parametrize(("width", "height"), [*SIZES, (40, 8), (20, 4)])
def test_an_error_that_is_long_does_not_break_the_picture(width: int, height: int) -> None:
    """The summary after the run has the whole of it."""
    lines = drawn(large(3, error="stage `score` raised " * 90), width, height).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= max(height, 12)


def test_each_of_several_rewards_is_shown() -> None:
    """The sum alone hides which one moves."""
    shown = picture()
    for row in shown.rows.values():
        row |= {"reward_mean/right": 0.25, "reward_mean/short": 0.75}
    assert "reward/right 0.250   reward/short 0.750" in drawn(shown)


def test_the_picture_of_the_readme_needs_no_font() -> None:
    """docs/images/draw.py makes it; a renderer without the fonts, or without `textLength`, would move its letters."""
    made = runpy.run_path(str(ROOT / "docs" / "images" / "draw.py"))["svg"](large(3))
    kept = (ROOT / "docs" / "images" / "spell_backward.svg").read_text()
    for text in (made, kept):
        used = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(text).iter()}
        assert used <= {"svg", "title", "rect", "defs", "path", "g", "use"}
