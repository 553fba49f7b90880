"""Latencies between daemons: read from what both remember."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.micro.latency import compared, joined

HERE, THERE = "01" * 16, "02" * 16


def entry(at: float, node: str, what: str, *tasks: str, peers: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"time_s": at, "node_id": node, "what": what, "tasks": list(tasks), "peers": list(peers)}


def test_what_one_node_did_is_joined_with_when_the_other_heard_of_it() -> None:
    """Claims are renewed and records put again: the first time counts, once."""
    times = joined(
        [
            entry(1.0, HERE, "claimed", "3/roll/p0", "3/roll/p1", peers=(THERE,)),
            entry(1.001, THERE, "claim heard", "3/roll/p0", peers=(HERE,)),
            entry(1.003, THERE, "claim heard", "3/roll/p0", "3/roll/p1", peers=(HERE,)),
            entry(2.0, HERE, "finished", "3/roll/p0"),
            entry(2.005, THERE, "record heard", "3/roll/p0", "3/score/p0", peers=(HERE,)),
            entry(2.5, HERE, "finished", "3/roll/p1"),
            entry(2.51, HERE, "record heard", "3/learn/b0-1", peers=(THERE,)),
            entry(2.52, THERE, "seal proposed", "3/roll/p0", "3/roll/p1", peers=(HERE,)),
            entry(2.6, THERE, "seal proposed", "3/learn/s0-1", peers=(HERE,)),
        ]
    )
    assert times["claim"] == [pytest.approx(1.0), pytest.approx(3.0)]
    assert times["completion"] == [pytest.approx(5.0)]
    assert times["copies"] == [pytest.approx(20.0)]


def test_what_a_run_did_not_see_is_no_figure() -> None:
    """A script reads the last line as JSON, which has no number for it."""
    figures = compared(
        {"claim": [], "copies": [3.0], "answer": [1.0]}, {"claim": [1.0], "copies": [], "answer": [2.0]}, 16
    )
    assert [(each.figure, each.ours, each.anchor_value) for each in figures] == [
        ("answer, median, 16 MiB a partition", 1.0, 2.0)
    ]
