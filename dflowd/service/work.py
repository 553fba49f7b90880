"""Answers that all members know together: tasks, metrics, samples."""

from __future__ import annotations

from typing import Any

from dflow_protocols.books import merge_abandoned, merge_rows, own_report
from dflow_protocols.names import NodeId, RunId

from .dispatch import Service
from .request import MOST_ROWS, Params, limit_of, number_of


class WorkAnswers:
    """`tasks`, `metrics`, `samples`, and this node's shares of them."""

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
        asked = {"run": self._service.find(params), "step": params.get("step"), "limit": limit_of(params, MOST_ROWS)}
        shares, missing = await self._service.gather("share.tasks", asked, deadline_s)
        tasks = [
            {**row, "node": self._service.name_of(node), "node_id": node}
            for node, share in shares.items()
            for row in share["tasks"]
        ]
        tasks.sort(key=lambda row: (row["started"], row["id"]))
        return {"tasks": tasks[-limit_of(params, MOST_ROWS) :], "missing": missing}

    async def _gather_metrics(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        asked = {"run": self._service.find(params), "since_step": int(number_of(params, "since_step", 0))}
        shares, missing = await self._service.gather("share.metrics", asked, deadline_s)
        reports = list(shares.values())
        return {"rows": merge_rows(reports), "abandoned": merge_abandoned(reports), "missing": missing}

    async def _gather_samples(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        limit = limit_of(params, 100)
        shares, missing = await self._service.gather(
            "share.samples", {"run": self._service.find(params), "limit": limit}, deadline_s
        )
        samples = [
            {**sample, "node": self._service.name_of(node)}
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
        step = params.get("step")
        limit = limit_of(params, MOST_ROWS)
        await self._read(RunId(params["run"]))
        return {"tasks": self._service.recorder.timeline.rows(RunId(params["run"]), step, limit)}

    async def _own_metrics(self, params: Params) -> dict[str, Any]:
        run, since = RunId(params["run"]), int(params["since_step"])
        await self._read(run)
        book = self._service.recorder.metrics
        rows, abandoned = book.rows(run, since), book.abandoned(run, since)
        return own_report(rows, abandoned, self._service.recorder.timeline.costs(run, since - 1), self._slots)

    def _own_samples(self, params: Params) -> dict[str, Any]:
        return {"samples": self._service.recorder.metrics.samples(RunId(params["run"]), limit_of(params, 100))}
