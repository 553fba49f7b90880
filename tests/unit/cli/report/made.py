"""Spans and loads as a test wants them."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from dflow_cli.report.loads import Load
from dflow_cli.report.spans import Span, spans_of
from tests.unit.cli.fakedaemon import told_rows, told_run
from tests.unit.cli.views.test_cli_views import pipeline


def task(text: str, node: str, started: float, ended: float, **changes: Any) -> dict[str, Any]:
    """A row of `tasks`. `text`: `STEP/STAGE/PART`."""
    step, stage, _ = text.split("/")
    row = {"id": text, "stage": stage, "step": int(step), "node": node, "node_id": node, "state": "done"}
    return {**row, "origin": "dealt", "started": started, "ended": ended, "seconds": ended - started, **changes}


def spans(*tasks: tuple[str, str, float, float], evaluating: tuple[str, ...] = ()) -> list[Span]:
    """Of (id, node, begin, end)."""
    return spans_of([task(*each) for each in tasks], evaluating, {})


def one_step(step: int, at: float, ahead: float = 0.0) -> list[dict[str, Any]]:
    """A step of two nodes that takes 5 s: `n1` samples for 2 s, `n0` for 1; its clock is `ahead`."""
    return [
        task(f"{step}/roll/p0", "n0", at, at + 1.0),
        task(f"{step}/roll/p1", "n1", at + ahead, at + ahead + 2.0),
        task(f"{step}/learn/b0-2", "n0", at + 2.5, at + 3.5),
        task(f"{step}/learn/b2-4", "n1", at + ahead + 2.5, at + ahead + 3.5),
        task(f"{step}/learn/s0-4", "n0", at + 3.75, at + 4.0),
        task(f"{step}/learn/s4-8", "n1", at + ahead + 3.75, at + ahead + 4.0),
        task(f"{step}/learn/apply", "n0", at + 4.0, at + 5.0),
        task(f"{step}/learn/apply", "n1", at + ahead + 4.0, at + ahead + 4.75),
    ]


def load(name: str, **changes: Any) -> Load:
    """A stage that takes 2.1 of 3.5 s of each of ten steps, on two nodes alike."""
    values: dict[str, Any] = {
        "name": name,
        "stage": name.partition(".")[0],
        "path_s": 21.0,
        "share": 0.6,
        "a_step_s": 2.1,
        "compute_s": 40.0,
        "task_s": 0.5,
        "steps": 10,
        "tasks": 80,
        "pieces": 8,
        "piece": "partition",
        "paces": {"n0": 0.5, "n1": 0.52},
    }
    return Load(**(values | changes))


class Mesh:
    """Answers every question of a report; `changes` are answers in place of these."""

    def __init__(self, changes: Mapping[str, Any]) -> None:
        tasks = [row for step in range(6) for row in one_step(step, 100.0 + 5.2 * step)]
        self.answers: dict[str, Any] = {
            "run": told_run(spec=pipeline().canonical(), submitted_s=98.0, wall_s=36.0),
            "metrics": {"rows": told_rows(6)},
            "tasks": {"tasks": tasks},
            "samples": {"samples": []},
            "nodes": {"nodes": [{"name": name, "device": "cpu x2", "slots": 1} for name in ("n0", "n1")]},
            "events": {"events": [], "names": {}},
        } | dict(changes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return

    def call(self, method: str, params: Mapping[str, Any] | None = None, deadline_s: float = 10.0) -> dict[str, Any]:
        return dict(self.answers[method])
