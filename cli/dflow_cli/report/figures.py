"""The report as data: every figure that the page shows, made from what was gathered. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .before_after import Measured, Pair, Said, ends_of, measured_of, pairs_of
from .bottleneck import Finding, Setting, findings_of
from .clocks import ahead_of_others
from .critical import critical_path
from .gathered import Gathered, Rows
from .loads import Load, StepPath, Tail, Wait, loads_of, step_paths_of, steps_s, tails_of, waits_of
from .nodes import NodeLine, node_lines_of
from .pace import Pace, pace_of
from .presence import Incident, incidents_of, moments_of, with_aftermath
from .prices import PriceOf
from .spans import Span, spans_of


@dataclass(frozen=True, slots=True)
class Figures:
    """All of it, but for tasks and curves. Times in seconds since 1970. `first_step`: of which tasks are known.
    `path_s`: of the whole critical path, `steps_s`: of that which belongs to steps. `ahead`: node -> seconds by which
    its clock was found ahead."""

    run: str
    name: str
    state: str
    remark: str
    step: int
    steps: int
    is_active: bool
    asked_s: float
    began_s: float
    ended_s: float
    folder: str
    missing: Sequence[str]
    reproducibility: str
    since_step: int | None
    weights: str | None
    version: str | None
    nodes: Sequence[NodeLine]
    node_hours: float
    cost: float | None
    pace: Pace
    first_step: int
    path_s: float
    steps_s: float
    loads: Sequence[Load]
    waits: Sequence[Wait]
    tails: Sequence[Tail]
    findings: Sequence[Finding]
    step_paths: Sequence[StepPath]
    measured: Sequence[Measured]
    pairs: Sequence[Pair]
    first_samples: Sequence[Said]
    last_samples: Sequence[Said]
    incidents: Sequence[Incident]
    ahead: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Report:
    """`figures`, and what the page draws beside them."""

    figures: Figures
    gathered: Gathered
    spans: Sequence[Span] = field(repr=False)


def report_of(gathered: Gathered, price_of: PriceOf | None = None) -> Report:
    """Raises what `price_of` does of a node that has no price."""
    outcome, run = gathered.outcome, gathered.outcome.run
    raw = spans_of(gathered.tasks, _evaluating(gathered), {})
    ahead = ahead_of_others(raw)
    spans = spans_of(gathered.tasks, _evaluating(gathered), ahead) if ahead else raw
    incidents = _within(incidents_of(_on_one_clock(gathered.events, ahead), gathered.names, run), gathered)
    began_s, ended_s = _times(gathered, spans)
    first_step = min((span.step for span in spans), default=0)
    steps_ahead = gathered.pipeline.ahead if gathered.pipeline is not None else 0
    path = critical_path(spans, moments_of(incidents), began_s if first_step == 0 else None, steps_ahead)
    step_paths = step_paths_of(path)
    loads, waits, tails = loads_of(spans, path), waits_of(path), tails_of(spans)
    lines = node_lines_of(gathered.nodes, spans, incidents, began_s, ended_s, price_of)
    first, last = ends_of(gathered.samples)
    return Report(
        Figures(
            run=run,
            name=outcome.name,
            state=outcome.state,
            remark=outcome.remark,
            step=outcome.step,
            steps=outcome.steps,
            is_active=not outcome.is_final,
            asked_s=gathered.asked_s,
            began_s=began_s,
            ended_s=ended_s,
            folder=gathered.folder,
            missing=gathered.missing,
            reproducibility=outcome.reproducibility,
            since_step=outcome.since_step,
            weights=outcome.weights,
            version=outcome.version,
            nodes=lines,
            node_hours=sum(line.hours for line in lines),
            cost=None if price_of is None else sum(line.cost or 0.0 for line in lines),
            pace=pace_of(gathered.rows, spans),
            first_step=first_step,
            path_s=sum(part.seconds for part in path),
            steps_s=steps_s(path),
            loads=loads,
            waits=waits,
            tails=tails,
            findings=findings_of(loads, waits, tails, _setting(gathered, lines)),
            step_paths=step_paths,
            measured=measured_of(outcome.evals),
            pairs=pairs_of(gathered.samples),
            first_samples=first,
            last_samples=last,
            incidents=with_aftermath(incidents, path, step_paths),
            ahead=ahead,
        ),
        gathered,
        spans,
    )


def _evaluating(gathered: Gathered) -> set[str]:
    """Stages that only measure: by the pipeline, or where it is not kept by what was measured."""
    if gathered.pipeline is not None:
        return {stage.id for stage in gathered.pipeline.stages if stage.operator.evaluates}
    return set(gathered.outcome.evals_by_stage)


def _on_one_clock(events: Rows, ahead: Mapping[str, float]) -> list[dict[str, Any]]:
    return [{**event, "time_s": float(event["time_s"]) - ahead.get(str(event["node"]), 0.0)} for event in events]


def _within(incidents: Sequence[Incident], gathered: Gathered) -> list[Incident]:
    """What other runs of the same folder met is theirs."""
    ends = [float(task["ended"]) for task in gathered.tasks if task.get("ended")]
    if not gathered.outcome.is_final or not ends:
        return list(incidents)
    return [incident for incident in incidents if incident.time_s <= max(ends) + 1.0]


def _times(gathered: Gathered, spans: Sequence[Span]) -> tuple[float, float]:
    """When the run began and ended; of an active one, when it was asked for. Without any times both are when that
    was."""
    began = [span.begin for span in spans[:1]]
    if gathered.submitted_s is not None:
        began.append(gathered.submitted_s)
    began_s = min(began, default=gathered.asked_s)
    if not gathered.outcome.is_final and not gathered.folder:
        return began_s, gathered.asked_s
    ended_s = max((span.end for span in spans), default=began_s)
    return began_s, max(ended_s, began_s + gathered.outcome.wall_s)


def _setting(gathered: Gathered, lines: Sequence[NodeLine]) -> Setting:
    worked = [line for line in lines if line.tasks]
    stages = gathered.pipeline.stages if gathered.pipeline is not None else ()
    devices = {line.device for line in worked}
    return Setting(
        {stage.id: stage.op for stage in stages},
        sum(line.slots or 1 for line in worked),
        len({line.host for line in worked if line.host}),
        None if "" in devices or not devices else any(not device.startswith("cpu") for device in devices),
    )
