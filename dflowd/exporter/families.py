"""What a daemon tells Prometheus, read from its rooms when it is asked: nothing is counted twice or kept here.

Names, units and labels are a promise: docs/monitoring.md lists them, and a test holds both alike. Labels are bounded:
no member, peer or task has a series of its own, and of runs only those under way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dflow_protocols.books import idle_by_role, step_sums
from dflow_protocols.metrics import finish

from ..observe.recorder import Recorder
from ..service.dispatch import Myself, NodeView
from ..service.runs import FINAL_STATES
from ..shards.usage import Usage
from ..transport.traffic import Traffic

KIND = "text/plain; version=0.0.4; charset=utf-8"  # of what `exposition` gives
MOST_RUNS = 16  # under way that are told of, the first by id
MOST_FIGURES = 128  # of each; one stage's own come last

Lanes = Mapping[str, Mapping[Any, Traffic]]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where it is read. `lag_s`: how late the loop was at worst, lately."""

    me: Myself
    node: NodeView
    recorder: Recorder
    engines: Callable[[], dict[str, Any]]
    usage: Callable[[], Usage]
    disk_limit: Callable[[], int]
    traffic: Callable[[], Lanes]
    gpus: Callable[[], list[dict[str, Any]]]
    lag_s: Callable[[], float]


class Exposition:
    """All families in Prometheus's text format, as of the moment of a call."""

    def __init__(self, sources: Sources) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Families(sources))
        ProcessCollector(registry=self._registry)

    def __call__(self) -> bytes:
        return generate_latest(self._registry)


class _Families(Collector):
    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        for families in (_daemon, _mesh, _runs, _work, _shards, _traffic, _slots, _gpus):
            yield from families(self._sources)


def _gauge(name: str, about: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"dflowd_{name}", about, labels=labels)


def _counter(name: str, about: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"dflowd_{name}", about, labels=labels)


def _one(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"dflowd_{name}", about, value=value)


def _counted(name: str, about: str, label: str, counts: Mapping[str, float]) -> GaugeMetricFamily:
    family = _gauge(name, about, label)
    for key, count in sorted(counts.items()):
        family.add_metric([key], count)
    return family


def _daemon(sources: Sources) -> Iterator[Metric]:
    info = _gauge("info", "1; who this daemon is", "node", "name", "version")
    info.add_metric([sources.me.id, sources.me.name, sources.me.version], 1)
    yield info
    yield _one("loop_lag_seconds", "how late the loop was at worst, within the last two minutes", sources.lag_s())
    levels = Counter(str(row["level"]) for row in sources.recorder.problems.rows())
    known = {"error": 0, "warning": 0} | levels
    yield _counted("problems", "what stands as wrong with this daemon or its runs", "level", known)
    reports = _counter("reports", "reports since the start, those below log.level included", "name", "level")
    for (name, level), count in sorted(sources.recorder.counts.reports.items()):
        reports.add_metric([name, level], count)
    yield reports


def _mesh(sources: Sources) -> Iterator[Metric]:
    members = sources.node.membership.members.values()
    states = Counter(str(member.state) for member in members)
    yield _counted("members", "members of the mesh as this one sees them, itself included", "state", states)
    drained = sum(member.is_up and member.claim.drained for member in members)
    yield _one("members_drained", "of those that are up: such as take no work", drained)


def _runs(sources: Sources) -> Iterator[Metric]:
    told = {run: view.summary() for run, view in sorted(sources.node.runs.items())}
    yield _counted(
        "runs", "runs that this daemon knows", "state", Counter(str(each["state"]) for each in told.values())
    )
    step = _gauge("run_step", "the step that a run under way is at", "run", "pipeline")
    steps = _gauge("run_steps", "and how many it has", "run", "pipeline")
    figures = _gauge("run_figure", "of the newest step here, as dflow metrics has it", "run", "figure", "stage")
    idle = _gauge(
        "run_idle_ratio", "of the newest step here, slots of this node that sampled or trained", "run", "role"
    )
    under_way = [run for run, each in told.items() if each["state"] not in FINAL_STATES][:MOST_RUNS]
    for run in under_way:
        step.add_metric([run, told[run]["name"]], told[run]["step"])
        steps.add_metric([run, told[run]["name"]], told[run]["steps"])
        rows = sources.recorder.metrics.newest(run, sources.node.runs[run].schedule)
        for name, value in list(finish(step_sums(rows)).items())[:MOST_FIGURES]:
            figure, _, stage = name.partition("/")
            figures.add_metric([run, figure, stage], value)
        for role, share in idle_by_role(row.get("waited", {}) for row in rows).items():
            idle.add_metric([run, role], share)
    yield from (step, steps, figures, idle)


def _work(sources: Sources) -> Iterator[Metric]:
    tasks = _counter(
        "tasks",
        "tasks that ended here: how they came to it, and done or what failed",
        "stage",
        "origin",
        "result",
    )
    for labels, count in sorted(sources.recorder.counts.tasks.items()):
        tasks.add_metric(labels, count)
    yield tasks


def _shards(sources: Sources) -> Iterator[Metric]:
    usage = sources.usage()
    held = {"memory": usage.used_bytes, "disk": usage.disk_bytes, "recycled": usage.recycled_bytes}
    yield _counted("shards_bytes", "bytes of shards; recycled: memory that is kept for the next ones", "place", held)
    limits = {"memory": usage.limit_bytes, "disk": sources.disk_limit()}
    yield _counted("shards_limit_bytes", "the most that they may take", "place", limits)
    yield _one("shards", "shards that lie here, whole or in part", usage.shards_count)


def _traffic(sources: Sources) -> Iterator[Metric]:
    moved = _counter("traffic_bytes", "bytes of frames since the start", "lane", "direction")
    for lane, peers in sorted(sources.traffic().items()):
        moved.add_metric([lane, "sent"], sum(peer.sent for peer in peers.values()))
        moved.add_metric([lane, "received"], sum(peer.received for peer in peers.values()))
    yield moved


def _slots(sources: Sources) -> Iterator[Metric]:
    engines = sources.engines()
    states = Counter((str(slot["kind"]), _slot_state(slot)) for slot in engines["slots"])
    slots = _gauge("slots", "slots for engines: busy, idle, without an engine, or drained", "kind", "state")
    for labels, count in sorted(states.items()):
        slots.add_metric(labels, count)
    yield slots
    yield _one("calls_waiting", "calls that wait for a slot", engines["waiting"])


def _slot_state(slot: Mapping[str, Any]) -> str:
    if slot["lost"]:
        return "drained"
    if slot["task"]:
        return "busy"
    return "idle" if slot["pid"] else "empty"


def _gpus(sources: Sources) -> Iterator[Metric]:
    """What the driver does not tell is left out."""
    used = _gauge("gpu_memory_used_bytes", "memory that is taken, by whomever", "gpu")
    total = _gauge("gpu_memory_total_bytes", "memory that there is", "gpu")
    busy = _gauge("gpu_busy_ratio", "share of the last second in which a kernel ran", "gpu")
    heat = _gauge("gpu_celsius", "temperature", "gpu")
    ecc = _gauge("gpu_ecc_errors", "uncorrected errors since it was last reset", "gpu")
    lost = _gauge("gpu_fell_off", "1 if it is gone from the bus", "gpu")
    age = _gauge("gpu_age_seconds", "since the driver last answered", "gpu")
    for index, gpu in enumerate(sources.gpus()):
        shares = {"busy": gpu["busy"] / 100 if gpu["busy"] is not None else None}
        told = {**gpu, **shares}
        for family, key in (
            (used, "memory_used"),
            (total, "memory_total"),
            (busy, "busy"),
            (heat, "celsius"),
            (ecc, "ecc_errors"),
            (lost, "fell_off"),
            (age, "age_s"),
        ):
            if told[key] is not None:
                family.add_metric([str(index)], float(told[key]))
    yield from (used, total, busy, heat, ecc, lost, age)
