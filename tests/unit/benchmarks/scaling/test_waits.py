"""Every second of a slot is told to have been work or waiting for one thing, by the tasks that a mesh tells of."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.scaling.profile import load
from benchmarks.scaling.waits import CAUSES, Step, on_one_clock, steps_of

PROFILE = load("siirl-table1")


def task(node: str, name: str, began: float, ended: float) -> dict[str, Any]:
    step, stage, _ = name.split("/")
    return {"node": node, "id": name, "stage": stage, "step": int(step), "started": began, "ended": ended}


def told(*tasks: dict[str, Any], nodes: int = 2) -> Step:
    (step,) = steps_of(PROFILE, PROFILE.pipeline(nodes, 2), on_one_clock(tasks))
    return step


BEFORE = (task("a", "0/learn/apply", 0.9, 1.0), task("b", "0/learn/apply", 0.9, 1.0))


def test_each_wait_counts_for_what_the_step_waited_for() -> None:
    """By hand: b claims late and samples longest, a trains longest and sums."""
    step = told(
        *BEFORE,
        *(task("a", f"1/roll/p{at}", 1.0, 5.0) for at in range(4)),
        *(task("b", f"1/roll/p{at}", 1.25, 6.0) for at in range(4, 8)),
        task("a", "1/learn/b0-4", 6.5, 9.0),
        task("b", "1/learn/b4-8", 6.5, 8.0),
        task("a", "1/learn/s0-1", 9.25, 9.5),
        task("a", "1/learn/apply", 9.5, 9.75),
        task("b", "1/learn/apply", 10.0, 10.25),
    )
    waits = dict(step.waits_s)
    assert waits.pop("machine") > 0, "these tasks take longer than their devices"
    assert waits == pytest.approx(
        {"claim": 0.25, "rollouts": 1.0, "seal": 1.0, "gradients": 1.0, "sum": 0.25 + 0.5, "version": 0.5}
    )


def test_devices_take_what_the_longest_completions_take_then_their_scores_and_leaves() -> None:
    """Of the same run on one node and on two: a node has the mean work of its profile, in both."""
    rolls = [task("a", f"1/roll/p{at}", 1.0, 3.0) for at in range(4)]
    end = [task("a", "1/learn/b0-4", 3.0, 4.0), task("a", "1/learn/apply", 4.0, 4.1)]
    alone = told(*BEFORE[:1], *rolls, *end, nodes=1)
    assert alone.ideal_s == pytest.approx(PROFILE.seconds, rel=0.15)
    assert set(alone.waits_s) == set(CAUSES)


def test_the_first_step_is_left_out() -> None:
    """Nobody can tell when it began."""
    spans = on_one_clock([task("a", "0/roll/p0", 0.0, 1.0), *BEFORE])
    assert steps_of(PROFILE, PROFILE.pipeline(1, 2), spans) == []
