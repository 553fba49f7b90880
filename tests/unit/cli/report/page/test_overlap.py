"""Sampling while training is seen at a glance: whose step each work is of, and how far rollouts are ahead."""

from __future__ import annotations

from typing import Any

from dflow_cli.report.page.overlap import STEPS, overlap
from dflow_cli.report.page.shapes import Palette, Picture, Text
from dflow_cli.report.spans import spans_of
from tests.unit.cli.report.made import task
from tests.unit.cli.report.page.test_drawings import node, rects, texts

PALETTE = Palette({"roll": 0, "learn": 1})


def tasks_of_step(step: int, lag: int) -> list[dict[str, Any]]:
    """A step of 4 s: `n1` trains, `n0` samples for the step that is `lag` later."""
    at, ahead = 4.0 * step, step + lag
    return [
        task(f"{ahead}/roll/p0", "n0", at, at + 1.0, samples_from=step),
        task(f"{ahead}/roll/p1", "n0", at + 1.0, at + 3.0, samples_from=step),
        task(f"{step}/learn/b0-2", "n1", at, at + 3.0),
        task(f"{step}/learn/apply", "n1", at + 3.0, at + 4.0),
    ]


def drawn(lag: int, steps: int = 9) -> Picture | None:
    rows = [row for step in range(steps) for row in tasks_of_step(step, lag)]
    return overlap(spans_of(rows, (), {}), [node("n0"), node("n1")], PALETTE)


def test_rollouts_ahead_show_their_step_and_their_version() -> None:
    """Beside the training of the version's own step, from the middle of the run."""
    picture = drawn(lag=2)
    assert picture is not None
    assert [text for text in texts(picture) if "←" in text] == ["4←2", "5←3", "6←4", "7←5"]
    assert [text for text in texts(picture) if text.startswith("version")] == [
        f"version {number}" for number in (3, 4, 5, 6)
    ]
    first = rects(picture, "s0")[0]
    assert first.title == "4/roll/p0 on n0: 1 s, from version 2"
    assert len(rects(picture, "s0")) == 2 * STEPS


def test_a_version_is_there_when_the_last_update_of_a_step_is_made() -> None:
    """First on whichever node makes it first; until then others of the step are made, from which no step samples."""
    rows = []
    for step in range(9):
        rows += tasks_of_step(step, 1)[:3]
        for node_name, late in (("n1", 0.0), ("n0", 0.2)):
            for update in (0, 1):
                begun = 4.0 * step + 3.0 + 0.4 * update + late
                rows.append(task(f"{step}/learn/apply", node_name, begun, begun + 0.1, update=update))
    once = [row for row in rows if row.get("update") != 0]
    pictures = [overlap(spans_of(each, (), {}), [node("n0"), node("n1")], PALETTE) for each in (rows, once)]
    several, last = ([shape for shape in each.shapes if shape.style == "mark"] for each in pictures if each is not None)
    assert several == last


def test_a_step_is_named_however_short_its_tasks_are() -> None:
    """Once, over all of them."""
    rows = [row for step in range(4) for row in tasks_of_step(step, 1) if row["stage"] == "learn"]
    rows += [
        task(f"{step + 1}/roll/p{at}", "n0", 4.0 * step + at / 50, 4.0 * step + (at + 0.5) / 50, samples_from=step)
        for step in range(4)
        for at in range(50)
    ]
    picture = overlap(spans_of(rows, (), {}), [node("n0"), node("n1")], PALETTE)
    assert picture is not None
    over = [shape.text for shape in picture.shapes if isinstance(shape, Text) and shape.style == "over"]
    assert over == ["1←0", "2←1", "3←2", "4←3"]


def test_a_run_in_which_nothing_was_ahead_has_no_such_picture() -> None:
    """Nor has one that is not past its first version, or whose tasks an earlier release kept."""
    assert drawn(lag=0) is None
    assert overlap(spans_of(tasks_of_step(0, 1)[:3], (), {}), [node("n0")], PALETTE) is None
    old = [{**row, "samples_from": None} for row in tasks_of_step(0, 1)]
    assert overlap(spans_of(old, (), {}), [node("n0")], PALETTE) is None
