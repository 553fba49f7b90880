"""Rows that people get: one a step of the pipeline, however many updates it made."""

from __future__ import annotations

from typing import Any

from dflow_protocols.books import first_version, merge_abandoned, merge_rows, own_report, place_of, told_task
from dflow_protocols.pipeline.schedule import Schedule

SCHEDULE = Schedule(2, {}, (0, 1, 4))  # the second step makes three updates


def row(number: int, **sums: float) -> dict[str, Any]:
    return {
        "step": number,
        "version": f"v{number}",
        "samples_total": 8,
        "time_s": 100.0 + number,
        "own_step_s": 10.0,
        "sums": sums,
    }


ROWS = [
    row(1, loss_sum=9.0, loss_count=3.0, learning_rate=4.0),
    row(2, rewarded=4.0, reward_sum=2.0, loss_sum=1.0, loss_count=1.0, learning_rate=3.0, grad_norm=5.0),
    row(3, loss_sum=2.0, loss_count=1.0, learning_rate=2.0, grad_norm=7.0),
    row(4, loss_sum=6.0, loss_count=1.0, learning_rate=1.0, grad_norm=6.0),
]


def test_the_updates_of_a_step_are_one_row() -> None:
    """What was sampled is told by the first of them; shares and means are of all; times add up."""
    first, second = merge_rows([own_report(ROWS, [], {}, 1)], SCHEDULE)
    assert (first["step"], first["loss"], first["step_s"]) == (1, 3.0, 10.0)
    assert (second["step"], second["version"], second["time_s"], second["step_s"]) == (2, "v4", 104.0, 30.0)
    assert (second["reward_mean"], second["loss"]) == (0.5, 3.0)
    assert (second["learning_rate"], second["grad_norm"]) == (1.0, 7.0)


def test_a_step_has_its_row_once_its_last_update_is_made() -> None:
    """Who draws or writes rows on may take each as it comes: none changes its figures later."""
    assert [each["step"] for each in merge_rows([own_report(ROWS[:3], [], {}, 1)], SCHEDULE)] == [1]


def test_a_step_that_one_node_made_in_part_is_put_together() -> None:
    """Who copied one of its versions knows no figures of it: another does."""
    copied = [row(2) | {"own_step_s": None}, *ROWS[2:]]
    rows = merge_rows([own_report(copied, [], {}, 1), own_report(ROWS[:2], [], {}, 1)], SCHEDULE)
    assert (rows[-1]["reward_mean"], rows[-1]["loss"]) == (0.5, 3.0)


def test_rows_of_a_step_are_asked_for_by_its_versions() -> None:
    """A member's part of rows from a step on begins with the first update of that step."""
    assert [first_version(SCHEDULE, step) for step in range(4)] == [0, 1, 2, 5]
    assert [place_of(SCHEDULE, number) for number in (0, 2, 4)] == [{"step": 0}, {"step": 1, "update": 1}, {"step": 2}]


def test_a_task_is_told_by_the_steps_that_people_count() -> None:
    """Also the version that it sampled from, where it sampled."""
    assert told_task(SCHEDULE, {"step": 4, "samples_from": 4}) == {"step": 2, "samples_from": 2}
    assert told_task(SCHEDULE, {"step": 1, "samples_from": None}) == {"step": 1, "update": 0, "samples_from": None}


def test_lost_versions_are_told_by_the_step_that_made_them() -> None:
    """Each in a row of its own: a branch may have ended between two updates."""
    lost = merge_abandoned([own_report([], ROWS[1:3], {}, 1)], SCHEDULE)
    assert [(each["step"], each["version"]) for each in lost] == [(2, "v2"), (2, "v3")]
