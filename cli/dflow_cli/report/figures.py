"""The report as data: every figure that the page shows, made from what was gathered. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean, median
from typing import Any

from dflow_protocols.wire.endpoint import parse_endpoint

from .before_after import Measured, Pair, Said, ends_of, measured_of, pairs_of
from .bottleneck import Finding, Setting, duration, findings_of
from .clocks import ahead_of_others
from .critical import Part, critical_path
from .gathered import Gathered, Rows
from .loads import ONCE, Load, Tail, Wait, loads_of, steps_s, tails_of, waits_of
from .presence import Incident, Stay, hours, incidents_of, moments_of, stays_of
from .prices import PriceOf
from .spans import Phase, Span, spans_of


@dataclass(frozen=True, slots=True)
class NodeLine:
    """A node, and its part of the run. `share`: of all nodes' compute seconds. `cost`: None without a price."""

    name: str
    host: str
    device: str
    slots: int | None
    state: str
    stays: Sequence[Stay]
    hours: float
    tasks: int
    stolen: int
    again: int
    failed: int
    compute_s: float
    share: float
    cost: float | None


@dataclass(frozen=True, slots=True)
class Pace:
    """Of steps that have the figures; None where no step does. `sample_s`: from the beginning of a partition to its
    advantages; `learnt_s`: to the first weights that learnt from it."""

    steps: int
    step_s: float | None
    step_p90_s: float | None
    steps_per_hour: float | None
    samples_per_s: float | None
    tokens_per_s: float | None
    sample_s: float | None
    sample_p90_s: float | None
    learnt_s: float | None


@dataclass(frozen=True, slots=True)
class StepPath:
    """The critical path of one step: seconds by stage and, as `waiting`, of all waits."""

    step: int
    seconds: Mapping[str, float]
    waiting: float

    @property
    def total(self) -> float:
        return sum(self.seconds.values()) + self.waiting


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
    path: Sequence[Part] = field(repr=False)


def report_of(gathered: Gathered, price_of: PriceOf | None = None) -> Report:
    """Raises what `price_of` does of a node that has no price."""
    outcome, run = gathered.outcome, gathered.outcome.run
    raw = spans_of(gathered.tasks, _evaluating(gathered), {})
    ahead = ahead_of_others(raw)
    spans = spans_of(gathered.tasks, _evaluating(gathered), ahead) if ahead else raw
    incidents = _within(incidents_of(_on_one_clock(gathered.events, ahead), gathered.names, run), gathered)
    began_s, ended_s = _times(gathered, spans)
    first_step = min((span.step for span in spans), default=0)
    path = critical_path(spans, moments_of(incidents), began_s if first_step == 0 else None)
    step_paths = step_paths_of(path)
    loads, waits, tails = loads_of(spans, path), waits_of(path), tails_of(spans)
    lines = _nodes(gathered, spans, incidents, began_s, ended_s, price_of)
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
            incidents=_with_aftermath(incidents, path, step_paths),
            ahead=ahead,
        ),
        gathered,
        spans,
        path,
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


# Nodes ------------------------------------------------------------------------------------------------------------


def _nodes(
    gathered: Gathered,
    spans: Sequence[Span],
    incidents: Sequence[Incident],
    began_s: float,
    ended_s: float,
    price_of: PriceOf | None,
) -> list[NodeLine]:
    told = {str(node["name"]): node for node in gathered.nodes if node.get("name")}
    stays = stays_of(incidents, spans, told, began_s, ended_s)
    total = sum(span.seconds for span in spans)
    by_node: dict[str, list[Span]] = {}
    for span in spans:
        by_node.setdefault(span.node, []).append(span)
    return [_line(name, told.get(name, {}), own, by_node.get(name, []), total, price_of) for name, own in stays.items()]


def _line(
    name: str,
    told: Mapping[str, Any],
    stays: Sequence[Stay],
    spans: Sequence[Span],
    total: float,
    price_of: PriceOf | None,
) -> NodeLine:
    compute_s, spent = sum(span.seconds for span in spans), hours(stays)
    return NodeLine(
        name=name,
        host=_host(str(told.get("control") or "")),
        device=str(told.get("device") or ""),
        slots=told.get("slots"),
        state=str(told.get("state") or ""),
        stays=stays,
        hours=spent,
        tasks=len(spans),
        stolen=sum(span.origin == "stolen" for span in spans),
        again=sum(span.origin == "again" for span in spans),
        failed=sum(span.is_failed for span in spans),
        compute_s=compute_s,
        share=compute_s / total if total else 0.0,
        cost=None if price_of is None else spent * price_of(name),
    )


def _host(control: str) -> str:
    try:
        return parse_endpoint(control).host
    except ValueError:
        return ""


# Times ------------------------------------------------------------------------------------------------------------


def pace_of(rows: Rows, spans: Sequence[Span]) -> Pace:
    """Steps by their rows, samples by the tasks that made them. The time before the first step does not count."""
    timed = [row for row in rows if row.get("step_s") and row["step"] > 0]
    times = sorted(float(row["step_s"]) for row in timed)
    total = sum(times)
    scored, learnt = _latencies(spans)
    return Pace(
        steps=len(times),
        step_s=median(times) if times else None,
        step_p90_s=_p90(times),
        steps_per_hour=3600.0 * len(times) / total if total else None,
        samples_per_s=_rate(timed, "samples"),
        tokens_per_s=_rate(timed, "generated_tokens"),
        sample_s=median(scored) if scored else None,
        sample_p90_s=_p90(scored),
        learnt_s=mean(learnt) if learnt else None,
    )


def _rate(rows: Rows, name: str) -> float | None:
    """Of the steps that have any: a warm-up that samples nothing does not slow sampling down."""
    own = [row for row in rows if row.get(name)]
    return sum(float(row[name]) for row in own) / sum(float(row["step_s"]) for row in own) if own else None


def _p90(values: Sequence[float]) -> float | None:
    return values[min(len(values) * 9 // 10, len(values) - 1)] if values else None


def _latencies(spans: Sequence[Span]) -> tuple[list[float], list[float]]:
    """Of each partition that training read: seconds to its last stage, and to the step's first update; sorted."""
    partitions: dict[tuple[int, str], tuple[float, float]] = {}
    updates: dict[int, float] = {}
    for span in spans:
        if span.phase is Phase.CHAIN and not span.evaluates and not span.is_failed:
            begin, end = partitions.get((span.step, span.part), (span.begin, span.end))
            partitions[span.step, span.part] = min(begin, span.begin), max(end, span.end)
        elif span.phase is Phase.APPLY:
            updates[span.step] = min(updates.get(span.step, span.end), span.end)
    scored = sorted(end - begin for begin, end in partitions.values())
    learnt = sorted(updates[step] - begin for (step, _), (begin, _) in partitions.items() if step in updates)
    return scored, learnt


def step_paths_of(path: Sequence[Part]) -> list[StepPath]:
    """By step, without what is done once a run."""
    worked: dict[int, dict[str, float]] = {}
    waited: dict[int, float] = {}
    for part in path:
        if part.name in ONCE:
            continue
        seconds = worked.setdefault(part.step, {})
        if part.is_wait:
            waited[part.step] = waited.get(part.step, 0.0) + part.seconds
        else:
            seconds[part.name] = seconds.get(part.name, 0.0) + part.seconds
    return [StepPath(step, worked[step], waited.get(step, 0.0)) for step in sorted(worked)]


_COSTLY = {"membership.died", "engine.died", "slot.drained"}


def _with_aftermath(incidents: Sequence[Incident], path: Sequence[Part], steps: Sequence[StepPath]) -> list[Incident]:
    """What was lost is done again, which shows in how long the step took in which it happened."""
    usual: dict[frozenset[str], list[float]] = {}
    for each in steps:
        usual.setdefault(frozenset(each.seconds), []).append(each.total)
    by_step = {each.step: each for each in steps}
    found = []
    for incident in incidents:
        step = next((part.step for part in path if part.begin <= incident.time_s <= part.end), None)
        if incident.name in _COSTLY and step in by_step:
            own, others = by_step[step].total, median(usual[frozenset(by_step[step].seconds)])
            told = f"step {step} took {duration(own)}, such steps take {duration(others)}"
            incident = replace(incident, detail=", ".join(filter(None, [incident.detail, told])))
        found.append(incident)
    return found
