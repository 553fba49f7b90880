"""Answers that all members know together: tasks, metrics, samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from dflow_protocols.books import first_version, merge_abandoned, merge_rows, own_report, told_task
from dflow_protocols.names import NodeId, RunId
from dflow_protocols.pipeline.schedule import Schedule

from .dispatch import Service
from .request import MOST_NUMBER, MOST_ROWS, Params, limit_of, number_of


class WorkAnswers:
    """`tasks`, `metrics`, `samples`, and this node's shares of them. What does not fit into one answer is `cut`: of the
    first two, rows of steps before those that came are asked for by `before_step`. Clients ask for, and get, steps of
    the pipeline; shares count versions, and are asked for by [`since`, `before`)."""

    def __init__(self, service: Service, slots: int) -> None:
        self._service, self._slots = service, slots
        service.serve(
            {
                "tasks": self._gather_tasks,
                "metrics": self._gather_metrics,
                "samples": self._gather_samples,
            },
            {
                "share.tasks": self._own_tasks,
                "share.metrics": self._own_metrics,
                "share.samples": self._own_samples,
            },
        )

    async def _gather_tasks(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        run = self._service.find(params)
        schedule = self._service.node.runs[run].schedule
        asked = {"run": run, **_of_step(params, schedule), "limit": limit_of(params, MOST_ROWS)}
        shares, missing = await self._service.gather("share.tasks", asked | _until(params, schedule.first), deadline_s)
        tasks = [
            {**told_task(schedule, row), "node": self._service.name_of(node), "node_id": node}
            for node, share in shares.items()
            for row in share["tasks"]
        ]
        tasks.sort(key=lambda row: (row["started"], row["id"]))
        tasks, cut = _whole(tasks, shares, lambda number: schedule.nearest(number).step, "tasks")
        return {"tasks": tasks[-limit_of(params, MOST_ROWS) :], "missing": missing, **cut}

    async def _gather_metrics(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        run = self._service.find(params)
        schedule = self._service.node.runs[run].schedule
        first = partial(first_version, schedule)
        asked = {"run": run, "since": first(int(number_of(params, "since_step", 0))), **_until(params, first)}
        shares, missing = await self._service.gather("share.metrics", asked, deadline_s)
        reports = list(shares.values())
        rows, cut = _whole(merge_rows(reports, schedule), shares, schedule.steps_to, "rows", "costs")
        return {"rows": rows, "abandoned": merge_abandoned(reports, schedule), "missing": missing, **cut}

    async def _gather_samples(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        run, limit = self._service.find(params), limit_of(params, 100)
        schedule = self._service.node.runs[run].schedule
        asked = {"run": run, "limit": limit, **_of_step(params, schedule)}
        shares, missing = await self._service.gather("share.samples", asked, deadline_s)
        samples = [
            {**sample, "step": schedule.nearest(sample["step"]).step, "node": self._service.name_of(node)}
            for node, share in shares.items()
            for sample in share["samples"]
        ]
        samples.sort(key=lambda sample: int(sample["step"]))
        return {"samples": samples[-limit:], "missing": missing}

    async def _read(self, run: RunId) -> None:
        """See that what earlier lives of this daemon knew of the run is known."""
        timeline = self._service.recorder.timeline
        if not timeline.has_read(run):
            loop = self._service.host.loop
            timeline.learn(run, await loop.run_in_executor(None, timeline.read, run))

    async def _own_tasks(self, params: Params) -> dict[str, Any]:
        limit = limit_of(params, MOST_ROWS)
        await self._read(RunId(params["run"]))
        since, before = _bounds(params)
        return {"tasks": self._service.recorder.timeline.rows(RunId(params["run"]), limit, since, before)}

    async def _own_metrics(self, params: Params) -> dict[str, Any]:
        run, book = RunId(params["run"]), self._service.recorder.metrics
        await self._read(run)
        since, before = _bounds(params)
        rows = [row for row in book.rows(run, since) if row["step"] < before]
        abandoned = [row for row in book.abandoned(run, since) if row["step"] < before]
        costs = self._service.recorder.timeline.costs(run, since - 1)
        costs = {step: cost for step, cost in costs.items() if step + 1 < before}
        return own_report(rows, abandoned, costs, self._slots)

    async def _own_samples(self, params: Params) -> dict[str, Any]:
        book, run, limit = self._service.recorder.metrics, RunId(params["run"]), limit_of(params, 100)
        if "since" not in params:
            return {"samples": book.samples(run, limit)}
        read = partial(book.samples_between, run, *_bounds(params), limit)
        return {"samples": await self._service.host.loop.run_in_executor(None, read)}


def _until(params: Params, first: Callable[[int], int]) -> dict[str, int]:
    """Of a share: versions before those that a step begins with, by `first`."""
    return {"before": first(int(number_of(params, "before_step", 0)))} if "before_step" in params else {}


def _of_step(params: Params, schedule: Schedule) -> dict[str, int]:
    """Of a share: versions of one step, if that is asked for."""
    if params.get("step") is None:
        return {}
    step = int(number_of(params, "step", 0))
    return {"since": schedule.first(step), "before": schedule.first(step + 1)}


def _bounds(params: Params) -> tuple[int, int]:
    """[since, before) of a share's versions."""
    return int(params.get("since", 0)), int(params.get("before", MOST_NUMBER))


def _whole(
    rows: list[dict[str, Any]], shares: Mapping[NodeId, Mapping[str, Any]], told: Callable[[int], int], *names: str
) -> tuple[list[dict[str, Any]], dict[str, bool]]:
    """The rows of steps of which every share is whole, and whether others were left out. `told`: the step of rows that
    a version's are part of."""
    lists = [share[name] for share in shares.values() if share.get("cut") for name in names]
    firsts = [_first_step(found) for found in lists if found]
    return ([row for row in rows if row["step"] > told(max(firsts))], {"cut": True}) if firsts else (rows, {})


def _first_step(rows: Sequence[Any]) -> int:
    return min(int(row["step"] if isinstance(row, Mapping) else row[0]) for row in rows)
