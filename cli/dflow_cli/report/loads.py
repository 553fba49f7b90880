"""What each stage took of a run: on the critical path, of all nodes' time, a task, on which node. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from dflow_protocols.names import Block, part_of

from .critical import Cause, Part
from .spans import Phase, Span

ONCE = frozenset({"init", "load", Cause.STARTUP, Cause.DOWN})  # no part of any step
LEAST_TASKS = 3  # of a stage on a node, before its pace is told
PIECES = {
    Phase.CHAIN: "partition",
    Phase.BLOCK: "leaf",
    Phase.SLICE: "chunk",
    Phase.APPLY: "update",
    Phase.OTHER: "whole",
}


@dataclass(frozen=True, slots=True)
class Load:
    """One stage, or part of training. Seconds: `path_s` on the critical path, `share` of the time of all steps;
    `a_step_s` on the path in a step that has it; `compute_s` of all nodes. What follows is of the phase that takes most
    of it: `task_s` the median task, up to so many `pieces` of the kind `piece` in one of its `steps`, `paces` of
    nodes: median seconds of such a piece."""

    name: str
    stage: str
    path_s: float
    share: float
    a_step_s: float
    compute_s: float
    task_s: float
    steps: int
    tasks: int
    pieces: int
    piece: str
    paces: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Wait:
    """The part of the critical path in which nothing of it ran, for one cause: `seconds` in so many `times`."""

    cause: str
    seconds: float
    times: int
    share: float
    a_step_s: float
    is_of_steps: bool


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a phase: for `wait_s` in all, the mean of the other nodes, these had nothing to do but to wait for the
    last task of stage `name` on `node`."""

    name: str
    node: str
    wait_s: float
    steps: int


@dataclass(frozen=True, slots=True)
class StepPath:
    """The critical path of one step: seconds by stage and, as `waiting`, of all waits."""

    step: int
    seconds: Mapping[str, float]
    waiting: float

    @property
    def total(self) -> float:
        return sum(self.seconds.values()) + self.waiting


def steps_s(path: Iterable[Part]) -> float:
    """Seconds of the path that belong to steps: what is done once a run is not among them."""
    return sum(part.seconds for part in path if part.name not in ONCE)


def loads_of(spans: Sequence[Span], path: Sequence[Part]) -> list[Load]:
    """By their share of the path, the largest first."""
    total = steps_s(path)
    on_path: dict[str, float] = {}
    for part in path:
        if not part.is_wait:
            on_path[part.name] = on_path.get(part.name, 0.0) + part.seconds
    by_name: dict[str, list[Span]] = {}
    for span in spans:
        by_name.setdefault(span.name, []).append(span)
    loads = [_load(name, own, on_path.get(name, 0.0), total) for name, own in by_name.items()]
    return sorted(loads, key=lambda load: (-load.path_s, load.name))


def _load(name: str, spans: Sequence[Span], path_s: float, total: float) -> Load:
    steps = len({span.step for span in spans})
    by_phase: dict[Phase, float] = {}
    for span in spans:
        by_phase[span.phase] = by_phase.get(span.phase, 0.0) + span.seconds
    phase = max(by_phase, key=lambda phase: (by_phase[phase], phase))
    main = [span for span in spans if span.phase is phase]
    pieces: dict[int, set[object]] = {}
    for span in main:
        pieces.setdefault(span.step, set()).update(_pieces(span))  # what was done twice is one piece
    share = path_s / total if total > 0 and name not in ONCE else 0.0
    return Load(
        name=name,
        stage=spans[0].stage,
        path_s=path_s,
        share=share,
        a_step_s=path_s / steps,
        compute_s=sum(span.seconds for span in spans),
        task_s=median(span.seconds for span in main),
        steps=steps,
        tasks=len(spans),
        pieces=max(len(of_step) for of_step in pieces.values()),
        piece=PIECES[phase],
        paces=_paces(main),
    )


def _pieces(span: Span) -> Iterable[object]:
    part = part_of(span.part)
    return part.leaves if isinstance(part, Block) else (span.part,)


def _paces(spans: Sequence[Span]) -> dict[str, float]:
    by_node: dict[str, list[float]] = {}
    for span in spans:
        if not span.is_failed:
            by_node.setdefault(span.node, []).append(span.seconds / span.units)
    return {node: median(paces) for node, paces in sorted(by_node.items()) if len(paces) >= LEAST_TASKS}


def waits_of(path: Sequence[Part]) -> list[Wait]:
    """By cause, the longest first."""
    total, steps = steps_s(path), len({part.step for part in path if not part.is_wait})
    by_cause: dict[str, list[float]] = {}
    for part in path:
        if part.is_wait:
            by_cause.setdefault(part.name, []).append(part.seconds)
    found = [
        Wait(cause, sum(waits), len(waits), sum(waits) / total, sum(waits) / max(steps, 1), True)
        if cause not in ONCE and total > 0
        else Wait(cause, sum(waits), len(waits), 0.0, 0.0, False)
        for cause, waits in by_cause.items()
    ]
    return sorted(found, key=lambda wait: (-wait.seconds, wait.cause))


def tails_of(spans: Iterable[Span]) -> list[Tail]:
    """Of rollouts and of gradients: what follows waits for the last of them. The longest first."""
    steps: dict[int, list[Span]] = {}
    for span in spans:
        if span.phase in (Phase.CHAIN, Phase.BLOCK) and not span.is_failed:
            steps.setdefault(span.step, []).append(span)
    found: dict[tuple[str, str], list[float]] = {}
    for own in steps.values():
        for phase in (Phase.CHAIN, Phase.BLOCK):
            among = [span for span in own if span.phase is phase and not span.evaluates]
            if among:
                last = max(among, key=lambda span: (span.end, span.node))
                long = max((span for span in among if _is_same_call(span, last)), key=lambda span: span.seconds)
                found.setdefault((long.name, last.node), []).append(_waited(own, among, last))
    tails = [Tail(name, node, sum(waits), len(waits)) for (name, node), waits in found.items()]
    return sorted(tails, key=lambda tail: (-tail.wait_s, tail.name, tail.node))


def _is_same_call(span: Span, last: Span) -> bool:
    """Stages of one partition run one after the other: it is the longest of them that is waited for."""
    return (span.node, span.part, span.step) == (last.node, last.part, last.step)


def _waited(own: Sequence[Span], among: Sequence[Span], last: Span) -> float:
    """Mean seconds of the other nodes from the end of the last task that each of them had to the end of `last`."""
    begin = min(span.begin for span in among)
    ends: dict[str, float] = {}
    for span in own:
        if span.node != last.node and span.begin < last.end:
            ends[span.node] = max(ends.get(span.node, begin), min(span.end, last.end))
    return sum(last.end - end for end in ends.values()) / len(ends) if ends else 0.0


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
