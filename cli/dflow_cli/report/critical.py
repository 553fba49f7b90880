"""The critical path of a run: the one chain of tasks and waits that decided when it was over. Pure.

It is walked backwards. A task began when the last of what it waited for had ended: the task before it on its node,
which had the slot, or, for the first tasks of a phase, the last task of the phase before it in the step, on whatever
node. The time between the two is waiting, and is told by what it was before. So every second from the first task to the
last is counted once, and the parts add up to the whole.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from .spans import Phase, Span

TOLERANCE_S = 0.005  # that a daemon may note a task's end late
LEAST_CAUSE_S = 0.2  # of a wait, before what happened in it is called its cause


class Cause(StrEnum):
    """What a wait was for, as far as that is known."""

    STARTUP = "engines start"
    BETWEEN = "between tasks of one node"
    NEXT_STEP = "between the update and the next step's first task"
    MANIFEST = "rollouts are backed up and sealed"
    GRADIENTS = "gradients move between nodes"
    SLICES = "slices of the gradient move and are sealed"
    OTHER = "for another task"
    DEATH = "a node has died, which is noticed"
    COMING = "a node that came starts its engine"
    DOWN = "no daemon ran"


_BEFORE = {Phase.BLOCK: Cause.MANIFEST, Phase.SLICE: Cause.GRADIENTS, Phase.APPLY: Cause.SLICES}


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the path: work of a node, or a wait. `name`: the stage or part of training, or the cause. `node`: who
    worked, or what waited."""

    step: int
    name: str
    node: str
    begin: float
    end: float
    is_wait: bool

    @property
    def seconds(self) -> float:
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Moment:
    """What can be the cause of a wait: that `node` was found dead (DEATH), or that its daemon was started (COMING)."""

    time_s: float
    cause: Cause
    node: str


def critical_path(
    spans: Sequence[Span], moments: Sequence[Moment] = (), began: float | None = None, ahead: int = 0
) -> list[Part]:
    """In the order of time. `spans`: on one clock. `began`: when the run was submitted; the time to the first task is
    told too where it is given. `ahead`: steps for which rollouts need no update."""
    tasks = _Tasks(spans, ahead)
    here = tasks.last()
    if here is None:
        return []
    path: list[Part] = []
    cursor = tasks.span(here).end
    while here is not None:
        span = tasks.span(here)
        begin = min(span.begin, cursor)
        path.append(Part(span.step, span.name, span.node, begin, cursor, is_wait=False))
        cursor, before = begin, tasks.awaited(here)
        until = began if before is None else min(tasks.span(before).end, cursor)
        if until is not None and until < cursor:
            told = Cause.STARTUP if before is None else _cause(tasks.span(before), span)
            if before is not None and cursor - until >= LEAST_CAUSE_S:
                told = tasks.happened(moments, span.node, until, cursor) or told
            path.append(Part(span.step, told, span.node, until, cursor, is_wait=True))
            cursor = until
        here = before
    path.reverse()
    return path


def _cause(before: Span, span: Span) -> Cause:
    if before.step != span.step and before.phase in (Phase.APPLY, Phase.OTHER):
        return Cause.NEXT_STEP
    if before.step == span.step and before.phase < span.phase:
        return _BEFORE.get(span.phase, Cause.OTHER)
    return Cause.BETWEEN if before.node == span.node else Cause.OTHER


class _Tasks:
    """All spans, to be asked what one of them waited for."""

    def __init__(self, spans: Sequence[Span], ahead: int) -> None:
        self._spans = spans
        self._ahead = ahead
        order = sorted(range(len(spans)), key=lambda index: (spans[index].end, index))
        self._by_node, self._by_phase, self._by_partition = _Index(), _Index(), _Index()
        for index in order:
            span = spans[index]
            self._by_node.add((span.node,), span.end, index)
            if span.phase is not Phase.OTHER and not span.is_failed:
                phase = Phase.SLICE if span.evaluates else span.phase  # the update waits for both
                self._by_phase.add((span.step, phase), span.end, index)
                self._by_partition.add((span.step, span.part), span.end, index)
        self._updates = {(span.node, span.step) for span in spans if span.phase is Phase.APPLY}
        self._ends_of: dict[str, list[float]] = {}
        for index in order:
            self._ends_of.setdefault(spans[index].node, []).append(spans[index].end)
        self._walked: set[int] = set()
        self._ends = [index for index in order if spans[index].phase is not Phase.OTHER]

    def span(self, index: int) -> Span:
        return self._spans[index]

    def happened(self, moments: Iterable[Moment], node: str, begin: float, end: float) -> Cause | None:
        """What explains a wait of `node` better than what it was before."""
        starts = [moment for moment in moments if moment.cause is Cause.COMING and moment.time_s <= end]
        survivors = {name for name, ends in self._ends_of.items() if ends[0] <= begin and ends[-1] > end}
        started = {moment.node for moment in starts if moment.time_s >= begin}
        if started and survivors <= started:
            return Cause.DOWN
        if any(moment.node == node and not self._has_ended(node, moment.time_s, end) for moment in starts):
            return Cause.COMING
        deaths = (moment for moment in moments if moment.cause is Cause.DEATH)
        silent = ((self._silent_since(moment), moment.time_s) for moment in deaths)
        return Cause.DEATH if any(since < end and found > begin for since, found in silent) else None

    def _has_ended(self, node: str, begin: float, end: float) -> bool:
        """Whether a task of the node ended between these times."""
        ends = self._ends_of.get(node, [])
        return bisect_right(ends, end) > bisect_right(ends, begin)

    def _silent_since(self, death: Moment) -> float:
        """When a node that was found dead was last heard of: when it ended a task."""
        ends = self._ends_of.get(death.node, [])
        at = bisect_right(ends, death.time_s) - 1
        return ends[at] if at >= 0 else death.time_s

    def last(self) -> int | None:
        """The task that ended last."""
        return self._ends[-1] if self._ends else None

    def awaited(self, index: int) -> int | None:
        """The last of what this task waited for; None of the first one."""
        span = self._spans[index]
        self._walked.add(index)
        until = span.begin + TOLERANCE_S
        found = [self._by_node.last((span.node,), until, self._walked)]
        if span.phase is Phase.CHAIN:
            found.append(self._by_partition.last((span.step, span.part), until, self._walked))
        else:
            earlier = (self._by_phase.last((span.step, phase), until, self._walked) for phase in _below(span.phase))
            found.append(next((other for other in earlier if other is not None), None))
        if span.phase in (Phase.CHAIN, Phase.BLOCK):
            update = span.step - 1 - (self._ahead if span.phase is Phase.CHAIN and not span.evaluates else 0)
            if (span.node, update) not in self._updates:  # it copied the version that somebody made
                found.append(self._by_phase.last((update, Phase.APPLY), until, self._walked))
        known = [other for other in found if other is not None]
        return max(known, key=lambda other: self._rank(other, span.node), default=None)

    def _rank(self, index: int, node: str) -> tuple[float, bool, int]:
        """The later end; of two that ended together what is on the node itself."""
        return self._spans[index].end, self._spans[index].node == node, index


def _below(phase: Phase) -> list[Phase]:
    """Phases before this one, the nearest first."""
    return [Phase(number) for number in range(phase - 1, Phase.OTHER, -1)]


@dataclass(slots=True)
class _Row:
    ends: list[float] = field(default_factory=list)
    indexes: list[int] = field(default_factory=list)


class _Index:
    """Tasks by a key, in the order of their ends."""

    def __init__(self) -> None:
        self._rows: dict[tuple[object, ...], _Row] = {}

    def add(self, key: tuple[object, ...], end: float, index: int) -> None:
        row = self._rows.setdefault(key, _Row())
        row.ends.append(end)
        row.indexes.append(index)

    def last(self, key: tuple[object, ...], until: float, but: set[int]) -> int | None:
        """The one that ended last until then, of those that the walk has not met."""
        row = self._rows.get(key)
        if row is None:
            return None
        at = bisect_right(row.ends, until) - 1
        while at >= 0 and row.indexes[at] in but:
            at -= 1
        return row.indexes[at] if at >= 0 else None
