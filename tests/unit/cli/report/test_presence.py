"""Who was there, and what befell nodes."""

from __future__ import annotations

from typing import Any

import pytest

from dflow_cli.report.critical import Cause
from dflow_cli.report.presence import Stay, hours, incidents_of, moments_of, stays_of
from tests.unit.cli.report.made import spans

RUN, N2 = "3f9c" * 8, "2" * 32
NAMES = {N2: "n2"}


def event(name: str, time_s: float, by: str = "n0", **fields: Any) -> dict[str, Any]:
    return {"name": name, "time_s": time_s, "node": by, "fields": fields}


def stays(*events: dict[str, Any], tasks: tuple[tuple[str, str, float, float], ...] = ()) -> dict[str, list[Stay]]:
    """Of `n2`, in a run from 100 to 200."""
    return stays_of(incidents_of(events, NAMES, RUN), spans(*tasks), ["n2"], 100.0, 200.0)


WORKED = (("0/roll/p0", "n2", 101.0, 110.0),)


def test_a_death_that_several_report_is_told_once_with_all_of_them() -> None:
    """Each daemon notices for itself; a later death of the same node is another."""
    told = incidents_of(
        [
            event("membership.died", 130.2, "n1", node=N2, incarnation=1),
            event("membership.died", 130.0, "n0", node=N2, incarnation=1),
            event("membership.died", 170.0, "n0", node=N2, incarnation=2),
        ],
        NAMES,
        RUN,
    )
    assert [(it.node, it.time_s, it.by) for it in told] == [("n2", 130.0, ("n0", "n1")), ("n2", 170.0, ("n0",))]
    assert [moment.cause for moment in moments_of(told)] == [Cause.DEATH, Cause.DEATH]


def test_what_befell_another_run_and_what_befalls_all_the_time_is_left_out() -> None:
    """A folder keeps the logs of all its runs."""
    events = [event("task.failed", 1.0, run="b" * 32, task="0/roll/p0"), event("step.advanced", 2.0, run=RUN, step=1)]
    assert incidents_of(events, NAMES, RUN) == []
    (own,) = incidents_of([event("task.failed", 3.0, run=RUN, task="0/roll/p0", error="KeyError")], NAMES, RUN)
    assert (own.node, own.detail) == ("n0", "task 0/roll/p0, error KeyError")


def test_a_node_that_was_there_all_the_time_counts_from_end_to_end() -> None:
    """It started before the run was submitted and stopped after it was over."""
    assert stays(tasks=WORKED) == {"n2": [Stay(100.0, 200.0)]}
    around = (event("daemon.started", 90.0, "n2"), event("daemon.stopped", 201.0, "n2"))
    assert stays(*around, tasks=WORKED) == {"n2": [Stay(100.0, 200.0)]}
    assert hours(stays(tasks=WORKED)["n2"]) == pytest.approx(100 / 3600)


def test_a_node_that_died_and_came_back_counts_while_it_was_there() -> None:
    """Its restart is told by itself, and by the others a little later."""
    found = stays(
        event("membership.died", 130.0, node=N2, incarnation=1),
        event("daemon.started", 150.0, "n2"),
        event("membership.restarted", 150.2, node=N2, incarnation=2),
        tasks=WORKED,
    )
    assert found == {"n2": [Stay(100.0, 130.0), Stay(150.0, 200.0)]}


def test_a_node_that_came_later_counts_from_then_on() -> None:
    """And one that came after the run not at all."""
    joined = event("membership.joined", 160.0, node=N2, incarnation=1)
    assert stays(joined) == {"n2": [Stay(160.0, 200.0)]}
    assert stays(event("membership.joined", 260.0, node=N2, incarnation=1)) == {}


def test_who_works_is_there_whatever_others_believed() -> None:
    """Across a split each half holds the other dead."""
    died = event("membership.died", 130.0, node=N2, incarnation=1)
    found = stays(died, tasks=(*WORKED, ("3/roll/p0", "n2", 140.0, 145.0), ("3/roll/p1", "n2", 145.0, 150.0)))
    assert found == {"n2": [Stay(100.0, 130.0), Stay(140.0, 150.0)]}


def test_of_whom_nothing_is_known_nothing_is_counted() -> None:
    """A member that no report names and that did no task may have been dead all the time."""
    assert stays() == {}
