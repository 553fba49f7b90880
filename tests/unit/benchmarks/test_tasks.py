"""Tasks a second: each mesh beside each other system that is here, and nothing silent about those that are not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from benchmarks import tasks
from benchmarks.tasks import figures, measure


def test_what_is_not_installed_is_skipped_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own figures need none of them."""
    monkeypatch.setattr(tasks, "find_spec", lambda name: None)
    monkeypatch.setattr(tasks, "of_ours", lambda nodes, partitions: {"tasks_s": 100.0, "cpu_ms": 0.4})
    told: list[Mapping[str, Any]] = []
    found = measure(told.append, nodes=(1,), partitions=(64,), rounds=1)
    assert {row["arm"] for row in told if "skipped" in row} == {"Ray tasks", "Ray actor calls", "Dask tasks"}
    assert all("pip install" in row["skipped"] for row in told if "skipped" in row)
    assert [(each.unit, each.ours, each.anchor, each.holds) for each in found] == [
        ("a second", 100.0, None, True),
        ("ms", 0.4, None, True),
    ]


def test_a_mesh_is_held_against_each_other_system_by_the_medians_of_all_rounds() -> None:
    """A round that something disturbed must not decide."""
    ours = [{"tasks_s": rate, "cpu_ms": cost} for rate, cost in ((10.0, 9.0), (300.0, 0.6), (320.0, 0.7))]
    theirs = [{"tasks_s": rate} for rate in (100.0, 150.0, 900.0)]
    rate, cost = figures({("dflowd", 2, 64): ours, ("Dask tasks", 1, 500): theirs})
    assert (rate.ours, rate.anchor, rate.anchor_value, rate.ratio) == (300.0, "Dask tasks", 150.0, 2.0)
    assert (cost.ours, cost.holds) == (0.7, False)
