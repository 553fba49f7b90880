"""Which tasks ran here, when, and what each step cost this node's slots.

Fed by what is started and by what comes back; asked by `tasks` and `metrics`. Bounded: of a run the latest rows and
steps stay, and of the runs the latest ones.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any

from dflow_protocols.names import RunId, TaskKey
from dflow_protocols.work import (
    ApplyWork,
    ChainWork,
    Done,
    Failed,
    InitWork,
    LoadWork,
    SaveWork,
    SliceWork,
    SumWork,
    Work,
)

TASKS_KEPT = 20_000  # finished tasks of a run, about 200 bytes each
STEPS_KEPT = 20_000  # steps of a run whose cost is known
RUNS_KEPT = 32
DEALT, STOLEN, AGAIN = "dealt", "stolen", "again"  # how a task came to this node
INIT_STEP = -1  # making version 0 comes before step 0


@dataclass(slots=True)
class TaskRow:
    """One task as this node saw it. Times in seconds since 1970."""

    id: str
    stage: str
    step: int
    state: str  # running | done | failed
    stolen: bool
    origin: str  # dealt | stolen | again: from a member that was dealt it and is dead, silent or failed at it
    started: float
    ended: float | None = None
    seconds: float = 0.0
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class StepCost:
    """What a step cost here: seconds by stage, and in which the slots were busy at all."""

    seconds: dict[str, float] = field(default_factory=dict)
    busy_s: float = 0.0


@dataclass(slots=True)
class _RunHistory:
    finished: deque[TaskRow] = field(default_factory=lambda: deque(maxlen=TASKS_KEPT))
    steps: OrderedDict[int, StepCost] = field(default_factory=OrderedDict)


@dataclass(slots=True)
class _Started:
    run: RunId
    task: TaskKey
    work: Work
    row: TaskRow


class Timeline:
    """Tasks of this node, by run."""

    def __init__(self) -> None:
        self._runs: OrderedDict[RunId, _RunHistory] = OrderedDict()
        self._running: dict[int, _Started] = {}

    def start(self, call: int, run: RunId, task: TaskKey, work: Work, origin: str, now_s: float) -> None:
        """A call began to run in a slot; told again, it began only now. `origin`: how it came here."""
        row = TaskRow(str(task), task.stage, task.step, "running", origin == STOLEN, origin, now_s)
        self._running[call] = _Started(run, task, work, row)

    def finish(self, call: int, done: Done, now_s: float) -> None:
        started = self._running.pop(call, None)
        if started is None:
            return
        history = self._history(started.run)
        cost = _cost(history, started)
        cost.busy_s += now_s - started.row.started
        if isinstance(started.work, ChainWork):
            self._finish_chain(history, cost, started, done, now_s)
            return
        row = started.row
        row.state, row.ended, row.seconds = "done", now_s, now_s - row.started
        history.finished.append(row)
        name = _cost_name(started.work, started.task)
        cost.seconds[name] = cost.seconds.get(name, 0.0) + row.seconds

    def _finish_chain(self, history: _RunHistory, cost: StepCost, started: _Started, done: Done, now_s: float) -> None:
        """One row a stage: their own seconds, laid end to end so that the last one ends now."""
        begin = now_s - sum(made.seconds for made in done.made)
        for made in done.made:
            task = f"{started.task.step}/{made.stage}/{started.task.part}"
            row = TaskRow(task, made.stage, started.task.step, "done", started.row.stolen, started.row.origin, begin)
            begin += made.seconds
            row.ended, row.seconds = begin, made.seconds
            history.finished.append(row)
            cost.seconds[made.stage] = cost.seconds.get(made.stage, 0.0) + made.seconds

    def fail(self, call: int, failed: Failed, now_s: float) -> None:
        started = self._running.pop(call, None)
        if started is None:
            return
        row = started.row
        row.state, row.ended, row.seconds, row.error = "failed", now_s, now_s - row.started, failed.error
        history = self._history(started.run)
        history.finished.append(row)
        _cost(history, started).busy_s += row.seconds

    def stop(self, call: int, now_s: float) -> None:
        """The call was given up; what it cost stays counted."""
        started = self._running.pop(call, None)
        if started is not None:
            _cost(self._history(started.run), started).busy_s += now_s - started.row.started

    def rows(self, run: RunId, step: int | None, limit: int) -> list[dict[str, Any]]:
        """The latest tasks of a run, running ones last, as plain maps."""
        history = self._runs.get(run)
        rows = list(history.finished) if history else []
        rows += [started.row for started in self._running.values() if started.run == run]
        return [row.to_dict() for row in rows if step is None or row.step == step][-limit:]

    def costs(self, run: RunId, since_step: int) -> dict[int, StepCost]:
        history = self._runs.get(run)
        return {step: cost for step, cost in history.steps.items() if step >= since_step} if history else {}

    def running(self) -> int:
        return len(self._running)

    def _history(self, run: RunId) -> _RunHistory:
        history = self._runs.setdefault(run, _RunHistory())
        self._runs.move_to_end(run)
        if len(self._runs) > RUNS_KEPT:
            self._runs.popitem(last=False)
        return history


def _cost(history: _RunHistory, started: _Started) -> StepCost:
    step = INIT_STEP if isinstance(started.work, InitWork) else started.task.step
    cost = history.steps.setdefault(step, StepCost())
    if len(history.steps) > STEPS_KEPT:
        history.steps.popitem(last=False)
    return cost


def _cost_name(work: Work, task: TaskKey) -> str:
    match work:
        case SliceWork() | SumWork():
            return f"{task.stage}.reduce"
        case ApplyWork():
            return f"{task.stage}.apply"
        case InitWork():
            return "init"
        case SaveWork():
            return "save"
        case LoadWork():
            return "load"
        case _:
            return task.stage
