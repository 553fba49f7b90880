"""Answers about runs: submit, cancel, how they stand, waiting for their end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dflow_protocols.events import CancelRequested, ResumeRequested, StopRequested, Submitted
from dflow_protocols.names import NodeId, RunId, run_id
from dflow_protocols.pipeline import Pipeline, SpecError

from .dispatch import RunView, Service
from .files import listed
from .request import EXIT_FAILED, Params, Refusal, number_of, typed
from .standing import StandingProblems

WAIT_CAP_S = 20.0  # a `wait` is asked again after this, so that a client notices a daemon that went silent
ENDED_FOR_GOOD = ("done", "cancelled")
FINAL_STATES = ("done", "failed", "stopped", "cancelled")


class RunAnswers:
    """`submit`, `cancel`, `stop`, `resume`, `runs`, `run`, `wait`."""

    def __init__(self, service: Service) -> None:
        self._service, self._host = service, service.host
        self._standing = StandingProblems(service)
        service.serve(
            {
                "submit": self._submit,
                "cancel": self._cancel,
                "stop": self._stop,
                "resume": self._resume,
                "runs": self._runs,
                "run": self._run,
                "wait": self._wait,
            },
            {"share.end": self._own_end, "share.runs": self._own_runs},
        )

    async def _submit(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        spec, base, nonce = typed(params, "spec", bytes), typed(params, "base", str), typed(params, "nonce", str)
        files = listed(params) if params.get("files") else ()
        try:
            run = run_id(Pipeline.from_canonical(spec).text_id, source, nonce)
        except (SpecError, ValueError, KeyError, TypeError) as error:
            raise Refusal(f"not a pipeline: {error}", "submit it with a `dflow` of the daemons' version") from None
        request = self._service.next_request()
        reply = await self._service.decide(
            request, Submitted(request, spec, base, source, nonce, files), deadline_s, _late(run)
        )
        self._service.audit("audit.submitted", source, run=RunId(str(reply["run"])))
        return {"run": str(reply["run"])}

    async def _cancel(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        run = self._service.find(params)
        request = self._service.next_request()
        reply = await self._service.decide(request, CancelRequested(request, run), deadline_s, _late(run))
        self._service.audit("audit.cancelled", source, run=run)
        return {"run": run, "state": str(reply["state"] if "state" in reply else self._view(run).summary()["state"])}

    async def _stop(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        run = self._service.find(params)
        request = self._service.next_request()
        reply = await self._service.decide(request, StopRequested(request, run), deadline_s, _late(run))
        self._service.audit("audit.stopped", source, run=run)
        return {"run": run, "state": str(reply["state"] if "state" in reply else self._view(run).summary()["state"])}

    async def _resume(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        run = self._service.find(params)
        request = self._service.next_request()
        event = ResumeRequested(request, run, params.get("from_start") is True)
        reply = await self._service.decide(request, event, deadline_s, _late(run))
        self._service.audit("audit.resumed", source, run=run)
        return {"run": run, "state": str(reply["state"] if "state" in reply else self._view(run).summary()["state"])}

    async def _runs(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        shares, missing = await self._service.gather("share.runs", {}, deadline_s)
        rows = []
        for run, view in self._service.node.runs.items():
            began_s, _ = self._service.recorder.metrics.times(run)
            told = {node: share["runs"][run] for node, share in shares.items() if run in share["runs"]}
            summary = _without_spec(view.summary())
            owner = self._service.owner(NodeId(summary["submitter"]))
            rows.append({**summary, "owner": owner, "submitted_s": began_s, **self._standing.merged(told)})
        return {"runs": sorted(rows, key=lambda row: (row["submitted_s"] or 0.0, row["run"])), "missing": missing}

    async def _run(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        run = self._service.find(params)
        summary = dict(self._view(run).summary())
        shares, missing = await self._service.gather("share.end", {"run": run}, deadline_s)
        began = [share["began_s"] for share in shares.values() if share["began_s"] is not None]
        ended = [share["ended_s"] for share in shares.values() if share["ended_s"] is not None]
        until_s = min(ended) if ended and summary["state"] in FINAL_STATES else self._host.wall_clock()
        newest = max((share["step"] for share in shares.values() if share["folder"]), default=0)
        summary["nodes"] = len(self._service.node.membership.alive())
        summary["submitted_s"] = min(began, default=None)
        summary["wall_s"] = max(0.0, until_s - min(began)) if began else 0.0
        summary["checkpoint"] = {
            self._service.name_of(node): share["folder"]
            for node, share in shares.items()
            if share["folder"] and share["step"] == newest
        }
        summary["missing"] = missing
        return summary | self._standing.merged({node: share for node, share in shares.items() if share["knows"]})

    async def _wait(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        """Answers when the run ended or went past `known_step`, else after `timeout_s` with how it stands."""
        run = self._service.find(params)
        known_step = int(number_of(params, "known_step", -1))
        until = self._host.clock() + min(number_of(params, "timeout_s", WAIT_CAP_S), WAIT_CAP_S)
        while True:
            summary = self._view(run).summary()
            left_s = until - self._host.clock()
            if summary["state"] in FINAL_STATES or summary["step"] > known_step or left_s <= 0:
                return await self._run(source, {"run": run}, deadline_s)
            await self._service.recorder.news.wait(min(left_s, 1.0))

    def _view(self, run: RunId) -> RunView:
        """As it stands now: a run that ended may be forgotten while somebody waits. Raises Refusal."""
        return self._service.node.runs[self._service.find({"run": run})]

    def _own_end(self, params: Params) -> dict[str, Any]:
        """The newest checkpoint here, and this node's view of when the run was."""
        run = RunId(params["run"])
        step, folder = self._service.recorder.metrics.checkpoint(run)
        began_s, ended_s = self._service.recorder.metrics.times(run)
        own = {"step": step, "folder": folder, "began_s": began_s, "ended_s": ended_s}
        knows = run in self._service.node.runs
        return {**own, "knows": knows, **(self._standing.of_run(run) if knows else {})}

    def _own_runs(self, params: Params) -> dict[str, Any]:
        """How the runs that have not ended for good stand here."""
        runs = {run: view.summary()["state"] for run, view in self._service.node.runs.items()}
        return {"runs": {run: self._standing.of_run(run) for run, state in runs.items() if state not in ENDED_FOR_GOOD}}


def _late(run: RunId) -> Refusal:
    what = f"run {run}: no second node has it on disk yet"
    hint = f"it is done all the same: `dflow ps` shows how the run stands, `dflow cancel {run[:8]}` ends it"
    return Refusal(what, hint, EXIT_FAILED)


def _without_spec(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in summary.items() if key != "spec"}
