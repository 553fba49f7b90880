"""Answers about a task's life: what every living member knows of it, by the turn on its node that it happened in."""

from __future__ import annotations

from typing import Any

from dflow_protocols.names import NodeId, RunId, TaskKey, part_of
from dflow_protocols.pipeline import Pipeline
from dflow_protocols.pipeline.grammar.problem import nearest
from dflow_protocols.pipeline.plan import StepPlan
from dflow_protocols.pipeline.plan import plan as make_plan
from dflow_protocols.steps.admission import is_unit
from dflow_protocols.story import Entry, Story

from .dispatch import Service
from .request import MOST_ROWS, Params, Refusal, limit_of

ROWS = 10_000  # of each member, where the question does not say
EVERYWHERE = {"init": ("init",), "checkpoint": ("save", "load")}  # stages of no step: what nodes do for themselves
FORM = "a task is STEP/STAGE/PART, such as 12/roll/p3, 12/learn/b0-2, 12/learn/s0-4 or 12/learn/apply"


class StoryAnswers:
    """`story`, and this node's share of it.

    Asked with `run`, or with `task` (STEP/STAGE/PART) and the run that it is of; without one it is the only active
    run, else the newest. Answered by `entries`, each with the number of its event (`cause`) and, where a call ended,
    of the event that began it (`began`), both of that node; times are by the clock of the node that tells. `since` says
    from when on a node knows everything; `missing` and `gone` who told nothing.
    """

    def __init__(self, service: Service, story: Story, life: float) -> None:
        """`life`: when this process began, in seconds since 1970."""
        self._service, self._story, self._life = service, story, life
        service.serve({"story": self._gather}, {"share.story": self._own})

    async def _gather(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        text = str(params.get("task") or "")
        run = self._service.find(params) if params.get("run") else self._run_meant(text)
        step = params.get("step") if isinstance(params.get("step"), int) else None
        if text:
            find_task(text, self._pipeline(run))
        limit = limit_of(params, ROWS)
        asked = {"run": run, "task": text, "step": step, "limit": limit}
        shares, missing = await self._service.gather("share.story", asked, deadline_s)
        rows = [
            {**row, "node": self._service.name_of(node), "node_id": node}
            for node, share in shares.items()
            for row in share["entries"]
        ]
        rows.sort(key=lambda row: (row["time_s"], row["node_id"], row["cause"]))
        members = self._service.node.membership.members
        summary = self._service.node.runs[run].summary()
        return {
            "run": run,
            "name": summary["name"],
            "state": summary["state"],
            "step": summary["step"],
            "task": text,
            "entries": rows[-limit:],
            "names": {node: self._service.name_of(node) for node in sorted(members)},
            "since": {self._service.name_of(node): share["since_s"] for node, share in shares.items()},
            "missing": missing,
            "gone": {self._service.name_of(node): it.state for node, it in members.items() if it.state in GONE},
        }

    def _own(self, params: Params) -> dict[str, Any]:
        run, text, step = RunId(params["run"]), str(params["task"]), params["step"]
        since = self._story.forgotten
        ahead_s = self._service.host.wall_clock() - self._service.host.clock()
        if text and run in self._service.node.runs:
            task, plan = find_task(text, self._pipeline(run))
            found = [*self._story.dealt(run, task, plan), *self._story.of(run, alike(task, plan))]
            found.sort(key=lambda entry: entry.cause)
        else:
            found = [] if text else self._story.of(run)
        if step is not None and run in self._service.node.runs:
            schedule = self._service.node.runs[run].schedule
            made = range(schedule.first(step), schedule.first(step + 1))
            found = [entry for entry in found if any(task.step in made for task in entry.tasks)]
        rows = [_row(entry, ahead_s) for entry in found[-limit_of(params, MOST_ROWS) :]]
        return {"entries": rows, "since_s": max(self._life, since + ahead_s)}

    def _run_meant(self, text: str) -> RunId:
        """Of which run a task is, that was named alone."""
        states = {run: view.summary()["state"] for run, view in self._service.node.runs.items()}
        active = sorted(run for run, state in states.items() if state == "active")
        if len(active) > 1:
            names = ", ".join(f"{run[:8]}/{text}" for run in active[:4])
            raise Refusal(f"`{text[:80]}` may be of {len(active)} runs", f"name the run before it: {names}")
        if active:
            return active[0]
        if not states:
            raise Refusal("no run is known here", "list runs with `dflow ps`", elsewhere=True)
        return max(states, key=lambda run: (self._service.recorder.metrics.times(run)[0] or 0.0, run))

    def _pipeline(self, run: RunId) -> Pipeline:
        return Pipeline.from_canonical(self._service.node.runs[run].summary()["spec"])


GONE = ("dead", "left")


def find_task(text: str, pipeline: Pipeline) -> tuple[TaskKey, StepPlan]:
    """The task that STEP/STAGE/PART names, and the plan of its step. Raises Refusal: what it could be."""
    number, _, rest = text.partition("/")
    stage, _, part = rest.partition("/")
    last = pipeline.schedule.versions
    if not (number.isascii() and number.isdigit() and stage and part):
        raise Refusal(f"`{text[:80]}` is no task", FORM)
    if int(number) > last:
        raise Refusal(f"`{text[:80]}`: the run has {last} steps", f"steps are 0 to {last}")
    plan = make_plan(pipeline, int(number))
    task = TaskKey(int(number), stage, part_of(part))
    parts = _parts(plan)
    if is_unit(task, plan) or part in (*parts.get(stage, ()), *EVERYWHERE.get(stage, ())):
        return task, plan
    if stage not in parts:
        near = nearest(stage, parts)
        hint = f"did you mean `{number}/{near}/{part}`?" if near else f"its stages: {', '.join(parts)}"
        raise Refusal(f"step {number} has no stage `{stage[:80]}`", hint)
    raise Refusal(f"`{stage}` has no part `{part[:80]}` in step {number}", f"its parts: {', '.join(parts[stage])}")


def _parts(plan: StepPlan) -> dict[str, tuple[str, ...]]:
    """By stage of a step, in words, which parts it has; those that are one word are meant as they stand."""
    known: dict[str, tuple[str, ...]] = {
        stage: (f"p0 to p{chain.partitions - 1}",) for chain in plan.chains for stage in chain.stages
    }
    for training in plan.trainings:
        blocks = f"b0-1 to b0-{training.leaves} (leaves, and blocks of them)"
        known[training.stage] = (blocks, "s0-1 and the like (slices: chunks of the gradient)", "apply")
    return known


def alike(task: TaskKey, plan: StepPlan) -> list[TaskKey]:
    """The task, and what is done in one call with it: the stages of its chain on the same partition."""
    chains = [chain.stages for chain in plan.chains if task.stage in chain.stages]
    return [TaskKey(task.step, stage, task.part) for stage in (chains[0] if chains else (task.stage,))]


def _row(entry: Entry, ahead_s: float) -> dict[str, Any]:
    return {
        "cause": entry.cause,
        "began": entry.began,
        "time_s": entry.at + ahead_s,
        "what": str(entry.what),
        "tasks": [str(task) for task in entry.tasks],
        "peers": list(entry.peers),
        "join": entry.join,
        "records": list(entry.records),
        "detail": entry.detail,
    }
