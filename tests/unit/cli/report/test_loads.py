"""What stages took, and who waited at their ends."""

from __future__ import annotations

import pytest

from dflow_cli.report.critical import Cause, critical_path
from dflow_cli.report.loads import loads_of, steps_s, tails_of, waits_of
from dflow_cli.report.spans import spans_of
from tests.unit.cli.report.made import one_step, spans, task


def test_stages_and_waits_share_the_time_of_the_steps_among_them() -> None:
    """What is done once a run, as making the first weights, has no share of a step."""
    rows = [
        task("0/init/init", "n0", 0.0, 30.0),
        *(row for step in range(4) for row in one_step(step, 31 + 5.2 * step)),
    ]
    found = spans_of(rows, (), {})
    path = critical_path(found, began=-2.0)
    loads, waits = loads_of(found, path), waits_of(path)
    assert sum(load.share for load in loads) + sum(wait.share for wait in waits) == pytest.approx(1.0)
    named = {load.name: load for load in loads}
    assert (named["init"].path_s, named["init"].share) == (0.0, 0.0)  # n1, which rolls longer, did not wait for it
    assert named["roll"].a_step_s == pytest.approx(2.0)
    assert named["roll"].compute_s == pytest.approx(12.0)
    assert {wait.cause for wait in waits if not wait.is_of_steps} == {Cause.STARTUP}
    assert steps_s(path) == pytest.approx(4 * 5.0 + 3 * 0.2)


def test_a_pace_is_of_equal_pieces_whatever_the_size_of_tasks() -> None:
    """Blocks have one leaf or more: a node that was dealt larger ones is not slower for that."""
    rows = [
        row
        for step in range(4)
        for row in (
            (f"{step}/learn/b0-4", "n0", 10.0 * step, 10.0 * step + 4.0),
            (f"{step}/learn/b4-6", "n1", 10.0 * step, 10.0 * step + 2.0),
        )
    ]
    (load,) = loads_of(spans(*rows), [])
    assert load.paces == {"n0": 1.0, "n1": 1.0}
    assert (load.pieces, load.piece, load.tasks) == (6, "leaf", 8)


def test_who_waits_at_the_end_of_a_phase_is_counted_by_whom_it_waits_for() -> None:
    """`n1` samples a second longer than `n0`; of gradients both end together."""
    tails = tails_of(spans_of([row for step in range(3) for row in one_step(step, 10.0 * step)], (), {}))
    assert [(tail.name, tail.node, tail.wait_s, tail.steps) for tail in tails if tail.wait_s] == [
        ("roll", "n1", 3.0, 3)
    ]


def test_who_evaluates_meanwhile_does_not_wait() -> None:
    """The node has work, though none of the phase."""
    rows = [*one_step(0, 0.0), task("0/check/p0", "n0", 1.0, 1.75)]
    (tail,) = [tail for tail in tails_of(spans_of(rows, ("check",), {})) if tail.name == "roll"]
    assert tail.wait_s == pytest.approx(0.25)
