"""The critical path: every second of a run counted once, by what was waited for."""

from __future__ import annotations

from itertools import pairwise

import pytest

from dflow_cli.report.critical import Cause, Moment, Part, critical_path
from dflow_cli.report.spans import spans_of
from tests.unit.cli.report.made import one_step, spans, task


def told(path: list[Part]) -> list[tuple[str, str, float]]:
    return [(part.name, part.node, round(part.seconds, 3)) for part in path]


def test_a_step_waits_for_the_last_of_each_phase_on_whatever_node() -> None:
    """`n1` samples longer, so its rollout is on the path; `n0` applies longer. Of what ends together it is the own."""
    assert told(critical_path(spans_of(one_step(0, 10.0), (), {}))) == [
        ("roll", "n1", 2.0),
        (Cause.MANIFEST, "n0", 0.5),
        ("learn", "n0", 1.0),
        (Cause.GRADIENTS, "n0", 0.25),
        ("learn.reduce", "n0", 0.25),
        ("learn.apply", "n0", 1.0),
    ]


def test_the_parts_add_up_to_the_run() -> None:
    """No second is counted twice and none is left out, from when it was submitted to the end of the last task."""
    tasks = [row for step in range(5) for row in one_step(step, 10.0 + 5.2 * step)]
    path = critical_path(spans_of(tasks, (), {}), began=9.0)
    assert sum(part.seconds for part in path) == pytest.approx(10.0 + 5.2 * 4 + 5.0 - 9.0)
    assert all(one.end == other.begin for one, other in pairwise(path))
    assert told(path)[0] == (Cause.STARTUP, "n1", 1.0)
    assert [part.name for part in path].count(Cause.NEXT_STEP) == 4


def test_a_node_that_is_busy_with_earlier_tasks_keeps_its_next_one_waiting() -> None:
    """Its own tasks are what the path runs through, and the time between them is told as that."""
    path = critical_path(
        spans(("0/roll/p0", "n0", 0.0, 1.0), ("0/roll/p1", "n0", 1.1, 2.0), ("0/roll/p2", "n1", 0.0, 0.5))
    )
    assert told(path) == [("roll", "n0", 1.0), (Cause.BETWEEN, "n0", 0.1), ("roll", "n0", 0.9)]


def test_the_update_waits_for_evaluations_too() -> None:
    """They are sealed with the slices: one that takes long is what the step waits for."""
    tasks = [*one_step(0, 0.0)[:6], task("0/check/p0", "n0", 4.0, 7.0), task("0/learn/apply", "n0", 7.2, 8.0)]
    path = critical_path(spans_of(tasks, ("check",), {}))
    assert told(path)[-3:] == [("check", "n0", 3.0), (Cause.SLICES, "n0", 0.2), ("learn.apply", "n0", 0.8)]


def test_a_stage_that_another_node_went_on_with_follows_the_first_ones_record() -> None:
    """After a death the partition goes on elsewhere from what was recorded."""
    path = critical_path(spans(("0/roll/p0", "n0", 0.0, 3.0), ("0/score/p0", "n1", 5.0, 6.0)))
    assert told(path) == [("roll", "n0", 3.0), (Cause.OTHER, "n1", 2.0), ("score", "n1", 1.0)]


def test_a_node_that_copied_a_version_waited_for_who_made_it() -> None:
    """It has no update of its own in the step before."""
    rows = [*one_step(0, 0.0)[:7], task("1/roll/p0", "n1", 5.5, 7.0)]
    assert told(critical_path(spans_of(rows, (), {})))[-3:] == [
        ("learn.apply", "n0", 1.0),
        (Cause.NEXT_STEP, "n1", 0.5),
        ("roll", "n1", 1.5),
    ]


def test_rollouts_that_are_behind_wait_for_no_update_that_they_do_not_need() -> None:
    """`n1` samples step 1 while `n0` still updates with step 0: what it does next waits for its own slot alone, and the
    block of step 1 for the version that it trains."""
    rows = [
        *one_step(0, 0.0)[:7],
        task("1/roll/p0", "n1", 4.6, 5.0),
        task("1/roll/p1", "n1", 5.2, 6.0),
        task("1/learn/b0-4", "n0", 6.1, 7.0),
    ]
    assert told(critical_path(spans_of(rows, (), {}), ahead=1))[-6:] == [
        (Cause.BETWEEN, "n1", 0.6),
        ("roll", "n1", 0.4),
        (Cause.BETWEEN, "n1", 0.2),
        ("roll", "n1", 0.8),
        (Cause.MANIFEST, "n0", 0.1),
        ("learn", "n0", 0.9),
    ]
    rows = [*rows[:7], task("1/learn/b0-4", "n1", 5.5, 7.0)]
    assert told(critical_path(spans_of(rows, (), {}), ahead=1))[-3:] == [
        ("learn.apply", "n0", 1.0),
        (Cause.NEXT_STEP, "n1", 0.5),
        ("learn", "n1", 1.5),
    ]


def waited_for(*moments: Moment, but: str = "") -> str:
    """What `n1` is said to have waited for from 10 to 20; `n2` did its last task until 4."""
    rows = spans(
        ("0/roll/p0", "n0", 0.0, 10.0),
        ("0/roll/p1", but or "n1", 0.0, 5.0),
        ("0/roll/p2", "n2", 0.0, 4.0),
        ("0/learn/b0-1", "n1", 20.0, 21.0),
        ("0/learn/b1-2", "n0", 20.0, 20.5),
    )
    return critical_path(rows, moments)[1].name


def test_a_wait_while_a_dead_node_is_silent_is_told_so() -> None:
    """From its last task until it is found dead; what the wait was before explains nothing then."""
    assert waited_for(Moment(15.0, Cause.DEATH, "n2")) == Cause.DEATH
    assert waited_for(Moment(25.0, Cause.DEATH, "n2")) == Cause.DEATH
    assert waited_for(Moment(9.0, Cause.DEATH, "n2")) == Cause.MANIFEST


def test_a_wait_in_which_all_were_started_is_one_without_daemons() -> None:
    """A night between two parts of a run is no part of a step; one daemon that comes back is no such night."""
    both = [Moment(15.0, Cause.COMING, node) for node in ("n0", "n1")]
    assert waited_for(*both) == Cause.DOWN
    assert waited_for(both[0]) == Cause.MANIFEST


def test_who_takes_work_before_its_engine_is_up_keeps_the_others_waiting() -> None:
    """Its first task in that life is what they wait for, wherever its daemon was started."""
    assert waited_for(Moment(7.0, Cause.COMING, "n1")) == Cause.COMING
    assert waited_for(Moment(12.0, Cause.COMING, "n1"), but="n2") == Cause.COMING
    assert waited_for(Moment(3.0, Cause.COMING, "n1")) == Cause.MANIFEST


def test_work_that_was_done_twice_neither_hides_nor_doubles_a_second() -> None:
    """Two nodes did one partition: the path takes what ended in time, whoever did it."""
    rows = one_step(0, 0.0)
    path = critical_path(spans_of([*rows, task("0/roll/p1", "n0", 1.0, 2.4)], (), {}))
    assert sum(part.seconds for part in path) == pytest.approx(5.0)


def test_of_a_run_without_tasks_there_is_no_path() -> None:
    """Nothing has ended yet."""
    assert critical_path([]) == []
