"""Which tasks ran here, when, and what each step cost this node's slots.

Fed by what is started and by what comes back; asked by `tasks` and `metrics`. Bounded: of a run the latest rows and
steps stay, and of the runs the latest ones.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field, replace
from typing import Any

from dflow_protocols.events import Start
from dflow_protocols.names import RunId, TaskKey
from dflow_protocols.work import (
    ApplyWork,
    ChainWork,
    Done,
    Failed,
    InitWork,
    LoadWork,
    Origin,
    SaveWork,
    SliceWork,
    SumWork,
    Work,
)

TASKS_KEPT = 20_000  # finished tasks of a run, about 200 bytes each
STEPS_KEPT = 20_000  # steps of a run whose cost is known
RUNS_KEPT = 32
INIT_STEP = -1  # making version 0 comes before step 0


@dataclass(slots=True)
class TaskRow:
    """One task as this node saw it. Times in seconds since 1970."""

    id: str
    stage: str
    step: int
    state: str  # running | done | failed
    stolen: bool
    origin: str  # how it came to this node: dealt | stolen | again
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

    def add_busy(self, seconds: float) -> None:
        self.busy_s += seconds

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds


@dataclass(slots=True)
class _RunHistory:
    finished: deque[TaskRow] = field(default_factory=lambda: deque(maxlen=TASKS_KEPT))
    steps: OrderedDict[int, StepCost] = field(default_factory=OrderedDict)


@dataclass(slots=True)
class _Running:
    asked: Start
    row: TaskRow


class Timeline:
    """Tasks of this node, by run."""

    def __init__(self) -> None:
        self._runs: OrderedDict[RunId, _RunHistory] = OrderedDict()
        self._running: dict[int, _Running] = {}

    def start(self, asked: Start, now_s: float) -> None:
        """A call began to run in a slot; told again, it began only now."""
        task, is_stolen = asked.task, asked.origin is Origin.STOLEN
        row = TaskRow(str(task), task.stage, task.step, "running", is_stolen, asked.origin.value, now_s)
        self._running[asked.call] = _Running(asked, row)

    def finish(self, call: int, done: Done, now_s: float) -> None:
        running = self._running.pop(call, None)
        if running is None:
            return
        history = self._history(running.asked.run)
        cost = _cost(history, running)
        cost.add_busy(now_s - running.row.started)
        if isinstance(running.asked.work, ChainWork):
            self._finish_chain(history, cost, running, done, now_s)
            return
        row = running.row
        row.state, row.ended, row.seconds = "done", now_s, now_s - row.started
        history.finished.append(row)
        cost.add(_cost_name(running.asked.work, running.asked.task), row.seconds)

    def _finish_chain(self, history: _RunHistory, cost: StepCost, running: _Running, done: Done, now_s: float) -> None:
        """One row a stage: their own seconds, laid end to end so that the last one ends now."""
        begin, task = now_s - sum(made.seconds for made in done.made), running.asked.task
        for made in done.made:
            row = replace(running.row, id=f"{task.step}/{made.stage}/{task.part}", stage=made.stage, state="done")
            row.started = begin
            begin += made.seconds
            row.ended, row.seconds = begin, made.seconds
            history.finished.append(row)
            cost.add(made.stage, made.seconds)

    def fail(self, call: int, failed: Failed, now_s: float) -> None:
        running = self._running.pop(call, None)
        if running is None:
            return
        row = running.row
        row.state, row.ended, row.seconds, row.error = "failed", now_s, now_s - row.started, failed.error
        history = self._history(running.asked.run)
        history.finished.append(row)
        _cost(history, running).add_busy(row.seconds)

    def stop(self, call: int, now_s: float) -> None:
        """The call was given up; what it cost stays counted."""
        running = self._running.pop(call, None)
        if running is not None:
            _cost(self._history(running.asked.run), running).add_busy(now_s - running.row.started)

    def rows(self, run: RunId, step: int | None, limit: int) -> list[dict[str, Any]]:
        """The latest tasks of a run, running ones last, as plain maps."""
        history = self._runs.get(run)
        rows = list(history.finished) if history else []
        rows += [each.row for each in self._running.values() if each.asked.run == run]
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


def _cost(history: _RunHistory, running: _Running) -> StepCost:
    step = INIT_STEP if isinstance(running.asked.work, InitWork) else running.asked.task.step
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
