"""Drawings show what the figures are: axes with round numbers, tasks where they were, nothing thinned in silence."""

from __future__ import annotations

import re
from typing import Any

import pytest

from dflow_cli.report.loads import StepPath
from dflow_cli.report.nodes import NodeLine
from dflow_cli.report.page.charts import MOST_POINTS, Curve, curves, share_bar, stacked
from dflow_cli.report.page.graph import graph
from dflow_cli.report.page.shapes import Palette, Path, Picture, Rect, Text, number, ticks
from dflow_cli.report.page.timeline import LEFT, WIDTH, one_step, steps_to_show, whole
from dflow_cli.report.presence import Incident, Stay
from dflow_cli.report.spans import Span, spans_of
from tests.unit.cli.report.made import load, spans, task
from tests.unit.cli.report.made import one_step as tasks_of_step
from tests.unit.cli.views.test_cli_views import pipeline

PALETTE = Palette({"roll": 0, "learn": 1})


def texts(picture: Picture) -> list[str]:
    return [shape.text for shape in picture.shapes if isinstance(shape, Text)]


def rects(picture: Picture, style: str) -> list[Rect]:
    return [shape for shape in picture.shapes if isinstance(shape, Rect) and style in shape.style.split()]


def node(name: str, **changes: Any) -> NodeLine:
    values: dict[str, Any] = {"name": name, "host": "", "device": "", "slots": 1, "state": "", "hours": 0.0, "tasks": 1}
    values |= {"stays": [Stay(0.0, 100.0)], "stolen": 0, "again": 0, "failed": 0, "compute_s": 0.0, "share": 0.0}
    return NodeLine(**(values | {"cost": None} | changes))


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (3.0, 7.0, [3.0, 4.0, 5.0, 6.0, 7.0]),
        (0.0, 3e-4, [0.0, 1e-4, 2e-4, 3e-4]),
        (5.0, 5.0, [5.0]),
    ],
)
def test_an_axis_has_round_numbers_within_it(low: float, high: float, told: list[float]) -> None:
    """Whatever the size of the figures."""
    assert ticks(low, high) == pytest.approx(told)


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.0, "0"), (0.25, "0.25"), (1234.5, "1234"), (2.5e-5, "2.5e-05"), (-0.1, "-0.1"), (3e7, "3e+07")],
)
def test_a_figure_at_an_axis_is_short(value: float, told: str) -> None:
    """It has as much room as it has."""
    assert number(value) == told


def test_a_figure_that_is_no_number_is_left_out_of_its_curve() -> None:
    """And a curve of nothing else is none."""
    picture = curves("loss", [Curve("loss", [(0, 1.0), (1, float("nan")), (2, 3.0)], "plain")])
    assert picture is not None
    (line,) = [shape for shape in picture.shapes if isinstance(shape, Path) and shape.style == "line plain"]
    assert line.line.count("L") == 1
    assert curves("loss", [Curve("loss", [(0, float("nan"))], "plain")]) is None


def test_of_a_long_run_means_are_drawn_and_that_is_said() -> None:
    """A file of a month must open, and a reader know what a point is."""
    picture = curves("loss", [Curve("loss", [(step, 1.0 * step) for step in range(10 * MOST_POINTS)], "plain")])
    assert picture is not None
    assert f"more than {MOST_POINTS}" in picture.note
    assert max(len(shape.line) for shape in picture.shapes if isinstance(shape, Path)) < 15 * MOST_POINTS
    columns = stacked("path", [StepPath(step, {"roll": 1.0}, 0.5) for step in range(1000)], ["roll"], PALETTE)
    assert columns is not None
    assert columns.note == "a column is the mean of 10 steps"
    assert len(rects(columns, "s0")) == 100


def test_the_share_of_each_part_is_its_width() -> None:
    """Waiting is one of them."""
    bar = share_bar("path", [("roll", 3.0, "s0"), ("waiting", 1.0, "wait")])
    assert bar is not None
    (roll,), (wait,) = rects(bar, "s0"), rects(bar, "wait")
    assert (roll.width + 1) / (wait.width + 1) == pytest.approx(3.0)
    assert roll.title == "roll: 3 s, 75.0 %"


def step(*changed: dict[str, Any]) -> list[Span]:
    return spans_of([*tasks_of_step(3, 10.0), *changed], (), {})


def test_every_task_of_a_step_lies_where_it_was() -> None:
    """From its beginning to its end, on the row of its node; what was stolen, or belongs to another step, is marked."""
    stolen = task("3/roll/p2", "n0", 11.0, 12.0, origin="stolen")
    picture = one_step(step(stolen, task("4/roll/p0", "n0", 14.9, 16.0)), [node("n0"), node("n1")], 3, PALETTE)
    first, second, other = rects(picture, "s0")[0], rects(picture, "stolen")[0], rects(picture, "other")[0]
    assert [first.x, first.width] == pytest.approx([LEFT, (WIDTH - LEFT - 10) / 5])
    assert second.x == pytest.approx(first.x + first.width)
    assert second.title == "3/roll/p2 on n0: 1 s, stolen"
    assert other.x + other.width <= WIDTH
    assert texts(picture)[-2:] == ["n0", "n1"]


def test_tasks_of_several_slots_lie_below_each_other() -> None:
    """And those of one slot do not, though a daemon notes an end a little late."""
    at_once = [task("3/roll/p8", "n0", 10.0, 11.0), task("3/roll/p9", "n0", 10.9, 11.5)]
    for slots, rows in ((1, 1), (2, 2), (None, 3)):
        picture = one_step(spans_of([*tasks_of_step(3, 10.0), *at_once], (), {}), [node("n0", slots=slots)], 3, PALETTE)
        assert len({rect.y for rect in rects(picture, "s0")}) == rows


def test_tasks_too_short_to_be_seen_are_drawn_as_one_and_counted() -> None:
    """A step may have thousands of slices."""
    slices = [task(f"3/learn/s{n}-{n + 1}", "n0", 13.0 + n / 1e4, 13.0 + (n + 1) / 1e4) for n in range(1000)]
    picture = one_step(step(*slices), [node("n0")], 3, PALETTE)
    merged = [rect for rect in rects(picture, "reduce") if rect.title.startswith("1000 tasks of learn.reduce")]
    assert [rect.width for rect in merged] == [pytest.approx(0.1 / 5 * (WIDTH - LEFT - 10))]


def test_the_usual_step_is_shown_and_one_that_took_much_longer() -> None:
    """Of the kind that most of the time went into: a warm-up of many short steps is another matter."""
    rows = [(f"{at}/warm/p0", "n0", 0.1 * at, 0.1 * at + 0.1) for at in range(-20, 3)]
    rows += [(f"{at}/roll/p0", "n0", 10.0 * at, 10.0 * at + 1.0) for at in range(3, 10)]
    shown = steps_to_show(spans(*rows, ("10/roll/p0", "n0", 200.0, 202.0)))
    assert shown == [(6, "the median one of 8 such steps"), (10, "the slowest of them")]
    assert len(steps_to_show(spans(*rows))) == 1
    assert steps_to_show([]) == []


def test_the_whole_run_shows_who_was_there_and_who_died() -> None:
    """On the row of the node, at its time."""
    died = Incident(50.0, "membership.died", "info", "n1", ("n0",), "a suspect did not refute in time", "")
    nodes = [node("n0"), node("n1", stays=[Stay(0.0, 50.0)])]
    picture = whole(spans(("0/roll/p0", "n0", 10.0, 90.0)), nodes, [died], (0.0, 100.0), PALETTE)
    assert picture is not None
    assert [rect.width for rect in rects(picture, "stay")] == pytest.approx(
        [WIDTH - LEFT - 10, (WIDTH - LEFT - 10) / 2]
    )
    (cross,) = [shape for shape in picture.shapes if isinstance(shape, Path) and "filled" in shape.style]
    assert cross.title == "membership.died after 50.0 s: a suspect did not refute in time"
    assert re.match(rf"M{(LEFT + WIDTH - 10) / 2:.1f} ", cross.line)
    assert whole([], nodes, [], (0.0, 1.0), PALETTE) is None


def test_the_graph_has_each_stage_below_what_it_reads_and_marks_the_longest() -> None:
    """A stage that did not run says so."""
    picture = graph(
        pipeline().stages, [load("roll"), load("learn", share=0.2), load("learn.apply", share=0.1)], PALETTE
    )
    assert picture is not None
    boxes = {rect.title.partition(":")[0]: rect for rect in rects(picture, "box")}
    assert boxes["roll"].y < boxes["score"].y < boxes["adv"].y < boxes["learn"].y
    assert [name for name, rect in boxes.items() if "slowest" in rect.style] == ["roll"]
    assert boxes["learn"].title == "learn: train · policy; 4.20 s a step, 30 %"
    assert boxes["warm"].title.endswith("did not run")
    assert graph((), [], PALETTE) is None
