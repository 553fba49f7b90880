"""Clocks that contradict the order of work are found out; others are left alone."""

from __future__ import annotations

import pytest

from dflow_cli.report.clocks import ahead_of_others
from dflow_cli.report.critical import critical_path
from dflow_cli.report.spans import spans_of
from tests.unit.cli.report.made import one_step


def steps(ahead: float) -> list[dict[str, object]]:
    return [row for step in range(10) for row in one_step(step, 10.0 * step, ahead)]


@pytest.mark.parametrize("ahead", [3.0, -3.0])
def test_a_clock_that_is_ahead_by_more_than_any_wait_is_put_right(ahead: float) -> None:
    """By as much as the order of work demands: then no task begins before what it waited for had ended."""
    found = ahead_of_others(spans_of(steps(ahead), (), {}))
    assert set(found) == {"n1"}
    assert abs(found["n1"] - ahead) <= 0.5  # the least wait between two phases, which could be of any length
    path = critical_path(spans_of(steps(ahead), (), found))
    assert sum(part.seconds for part in path) == pytest.approx(95.0, abs=0.5)


@pytest.mark.parametrize("ahead", [0.0, 0.001])
def test_clocks_that_nothing_speaks_against_are_taken_as_they_are(ahead: float) -> None:
    """A correction that no figure demands would be an invention."""
    assert ahead_of_others(spans_of(steps(ahead), (), {})) == {}


def test_one_task_out_of_order_is_no_wrong_clock() -> None:
    """A block that was made again after its slice had been asked for says nothing of the time."""
    rows = steps(0.0)
    rows[2] = {**rows[2], "started": -100.0}
    assert ahead_of_others(spans_of(rows, (), {})) == {}


def test_two_steps_are_too_few_to_judge_by() -> None:
    """Of a run that has just begun nothing is claimed."""
    assert ahead_of_others(spans_of(one_step(0, 0.0, 3.0)[:4], (), {})) == {}
