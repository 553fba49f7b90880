"""The report as data: throughput, latency, nodes, cost."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from dflow_cli.report.figures import Figures, report_of
from dflow_cli.report.gathered import Rows, gather
from dflow_cli.report.pace import pace_of
from dflow_cli.report.prices import pricing
from dflow_cli.report.spans import spans_of
from tests.unit.cli.fakedaemon import RUN
from tests.unit.cli.report.made import Mesh, one_step, task


def figures(price: float | None = None, **changes: object) -> Figures:
    return report_of(gather(Mesh(changes), RUN), pricing(price, None)).figures


def test_throughput_is_of_the_time_of_steps_that_sample() -> None:
    """A supervised warm-up samples nothing; counted, it would tell sampling slower than it is."""
    rows: Rows = [
        {"step": 0},
        {"step": 1, "step_s": 4.0},
        {"step": 2, "step_s": 2.0, "samples": 64, "generated_tokens": 500},
    ]
    pace = pace_of(rows, spans_of(one_step(0, 0.0), (), {}))
    assert (pace.samples_per_s, pace.tokens_per_s, pace.steps, pace.steps_per_hour) == (32.0, 250.0, 2, 1200.0)
    assert (pace.step_s, pace.step_p90_s) == (3.0, 4.0)


def test_a_samples_latency_is_that_of_its_partition() -> None:
    """From its beginning to its advantages, and to the first weights that learnt from it."""
    rows = [*one_step(0, 10.0), task("0/score/p0", "n0", 11.0, 11.2)]
    pace = pace_of([], spans_of(rows, (), {}))
    assert pace.sample_s == pytest.approx((1.2 + 2.0) / 2)
    assert pace.learnt_s == pytest.approx(4.75)


def test_nodes_have_their_share_of_the_work_and_their_cost() -> None:
    """Node-hours are of all members: one that had nothing to do was paid for, too."""
    told = figures(price=36.0, nodes={"nodes": [{"name": name} for name in ("n0", "n1", "n2")]})
    assert [line.name for line in told.nodes] == ["n0", "n1"]  # of n2 nothing says that it was there
    assert told.node_hours == pytest.approx(2 * 36.0 / 3600)
    assert told.cost == pytest.approx(2 * 36.0 * 36.0 / 3600)
    assert sum(line.share for line in told.nodes) == pytest.approx(1.0)
    assert figures().cost is None


def test_an_active_run_is_told_up_to_now_and_one_that_is_over_to_its_end() -> None:
    """The folder of one whose daemons were killed knows no later time than that of its last task."""
    assert figures().ended_s == pytest.approx(98.0 + 36.0)
    active = Mesh({}).answers["run"] | {"state": "active", "wall_s": 0.0}
    live = figures(run=active)
    assert live.ended_s == live.asked_s
    assert figures(run=active | {"from_folder": "/kept"}).ended_s == pytest.approx(100.0 + 5 * 5.2 + 5.0)


def test_of_a_run_whose_first_tasks_are_forgotten_the_path_begins_with_those_that_are_known() -> None:
    """Else all the time before would be told as the start of engines."""
    rows = [row for step in range(40, 43) for row in one_step(step, 1000.0 + 5.2 * step)]
    told = figures(tasks={"tasks": rows})
    assert told.first_step == 40
    assert told.path_s == pytest.approx(2 * 5.2 + 5.0)
    assert {wait.cause for wait in told.waits if not wait.is_of_steps} == set()


def test_all_figures_are_json() -> None:
    """`--json` is made from them as they are."""
    told = json.loads(json.dumps(asdict(figures())))
    assert told["findings"][0]["stage"] == "roll"
    assert told["step_paths"][0]["seconds"]["roll"] == pytest.approx(2.0)
