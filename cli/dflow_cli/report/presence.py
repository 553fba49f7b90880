"""Who was there while a run went on, and what befell nodes: from the reports of daemons and the tasks that they did."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from dflow_protocols.reports import REPORTS

from .bottleneck import duration
from .critical import Cause, Moment, Part
from .loads import StepPath
from .spans import Span

_COMES = {"membership.joined", "membership.returned", "membership.restarted"}
_GOES = {"membership.died", "membership.left"}
_OWN_COMES, _OWN_GOES = "daemon.started", "daemon.stopped"
TOLD = frozenset(
    {
        *_COMES,
        *_GOES,
        _OWN_COMES,
        _OWN_GOES,
        "membership.drained",
        "membership.undrained",
        "membership.stalled",
        "engine.died",
        "engine.stuck",
        "slot.drained",
        "slot.restored",
        "task.failed",
        "task.skipped",
        "operator.withdrawn",
        "operator.resumed",
        "update.withdrawn",
        "update.resumed",
        "checkpoint.loaded",
        "checkpoint.refused",
        "run.set_back",
        "run.regained",
        "run.branch_lost",
        "run.gave_way",
        "run.resumed",
        "run.paused",
        "run.unpaused",
        "run.blocked",
        "run.unblocked",
        "run.stalled",
        "run.unstalled",
    }
)
"""Reports that a reader of a run's history wants to see."""
SAME_S = 60.0  # within which several daemons report one thing of a node
_ASIDE = {"run", "node", "by", "cause", "incarnation", "count", "repeated", "name", "control", "bulk", "pid", "took_s"}
"""Fields that are told otherwise, or are of no use to whom reads of a run."""


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that befell a node or the run. `node`: whom; `by`: the daemons that reported it."""

    time_s: float
    name: str
    level: str
    node: str
    by: tuple[str, ...]
    meaning: str
    detail: str


@dataclass(frozen=True, slots=True)
class Stay:
    """A time in which a node was a member."""

    begin: float
    end: float


def incidents_of(events: Iterable[Mapping[str, Any]], names: Mapping[str, str], run: str) -> list[Incident]:
    """In the order of time; what several daemons report of one node is told once. `names`: of nodes by id."""
    found: list[Incident] = []
    latest: dict[tuple[object, ...], int] = {}
    for event in sorted(events, key=lambda event: float(event["time_s"])):
        name, fields, at, by = str(event["name"]), event["fields"], float(event["time_s"]), str(event["node"])
        if name not in TOLD or fields.get("run", run) != run:
            continue
        whom = str(fields.get("node", ""))
        node = names.get(whom, whom[:8]) if whom else by
        key = (name, node, fields.get("incarnation"))
        same = latest.get(key)
        if whom and same is not None and at < found[same].time_s + SAME_S:
            found[same] = replace(found[same], by=tuple(dict.fromkeys([*found[same].by, by])))
            continue
        latest[key] = len(found)
        detail = ", ".join(f"{field} {_said(value, names)}" for field, value in fields.items() if field not in _ASIDE)
        found.append(Incident(at, name, REPORTS[name].level, node, (by,), REPORTS[name].meaning, detail))
    return found


def _said(value: object, names: Mapping[str, str]) -> str:
    return names.get(str(value), str(value))


def moments_of(incidents: Iterable[Incident]) -> list[Moment]:
    """What explains waits."""
    causes = {"membership.died": Cause.DEATH, _OWN_COMES: Cause.COMING}
    return [Moment(it.time_s, causes[it.name], it.node) for it in incidents if it.name in causes]


def stays_of(
    incidents: Sequence[Incident], spans: Iterable[Span], nodes: Collection[str], began: float, ended: float
) -> dict[str, list[Stay]]:
    """Node -> when it was a member between `began` and `ended`: from what was reported of it, and while it did tasks,
    whatever others believed of it."""
    busy: dict[str, list[Stay]] = {node: [] for node in nodes}
    for span in spans:
        busy.setdefault(span.node, []).append(Stay(max(span.begin, began), min(span.end, ended)))
    found = {}
    for node, worked in busy.items():
        told = [(it.time_s, _is_arrival(it)) for it in incidents if it.node == node and _is_of_presence(it)]
        found[node] = _joined([*_reported(told, bool(worked), began, ended), *worked])
    return {node: stays for node, stays in sorted(found.items(), key=lambda item: (len(item[0]), item[0])) if stays}


def _is_arrival(incident: Incident) -> bool:
    return incident.name in _COMES or incident.name == _OWN_COMES


def _is_of_presence(incident: Incident) -> bool:
    return incident.name in _COMES | _GOES | {_OWN_COMES, _OWN_GOES}


def _reported(told: Iterable[tuple[float, bool]], has_worked: bool, began: float, ended: float) -> list[Stay]:
    """From arrivals and departures in the order of time; before the first one it was the other way round. Of whom
    nothing is told, and nothing done, nothing is known."""
    told = list(told)
    before = [is_arrival for at, is_arrival in told if at <= began]
    within = [(at, is_arrival) for at, is_arrival in told if began < at <= ended]
    is_here = before[-1] if before else not within[0][1] if within else has_worked
    stays, since = [], began
    for at, is_arrival in within:
        if is_here and not is_arrival:
            stays.append(Stay(since, at))
        if not is_here and is_arrival:
            since = at
        is_here = is_arrival
    return [*stays, Stay(since, ended)] if is_here else stays


def _joined(stays: Iterable[Stay]) -> list[Stay]:
    """Overlapping ones as one, in order."""
    found: list[Stay] = []
    for stay in sorted(stays, key=lambda stay: stay.begin):
        if stay.end <= stay.begin:
            continue
        if found and stay.begin <= found[-1].end:
            found[-1] = Stay(found[-1].begin, max(found[-1].end, stay.end))
        else:
            found.append(stay)
    return found


def hours(stays: Iterable[Stay]) -> float:
    return sum(stay.end - stay.begin for stay in stays) / 3600.0


_COSTLY = {"membership.died", "engine.died", "slot.drained"}


def with_aftermath(incidents: Sequence[Incident], path: Sequence[Part], steps: Sequence[StepPath]) -> list[Incident]:
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
