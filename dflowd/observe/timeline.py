"""Which tasks ran here, when, and what each step cost this node's slots.

Fed by what is started and by what comes back; asked by `tasks` and `metrics`. Bounded: of a run the latest rows and
steps stay, and of the runs the latest ones. All of it is on disk, too; what earlier lives of this daemon wrote is read
when it is asked for.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dflow_protocols.books import COSTS, TASKS, StepCost, costs_of
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
    at_once,
)

from .journal import Journal

TASKS_KEPT = 20_000  # finished tasks of a run, about 200 bytes each
READ_BYTES = 8 << 20  # of the files of earlier lives: some 40,000 tasks
STEPS_KEPT = 20_000  # steps of a run whose cost is known
RUNS_KEPT = 32
ANY_STEP = 1 << 62  # above all
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
    samples_from: int | None = None  # the number of the version that what it sampled is of, if it sampled any

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class _RunHistory:
    finished: deque[TaskRow] = field(default_factory=lambda: deque(maxlen=TASKS_KEPT))
    steps: OrderedDict[int, StepCost] = field(default_factory=OrderedDict)
    earlier: dict[int, StepCost] | None = None  # what steps cost in lives before this one, once it was read


@dataclass(frozen=True, slots=True)
class Earlier:
    """Of one run, what lives of this daemon before the present one knew."""

    rows: list[TaskRow]
    costs: dict[int, StepCost]


@dataclass(slots=True)
class _Running:
    asked: Start
    row: TaskRow


class Timeline:
    """Tasks of this node, by run. `life`: when this process began, in seconds since 1970."""

    def __init__(self, journal: Journal, life: float) -> None:
        self._journal, self._life = journal, life
        self._runs: OrderedDict[RunId, _RunHistory] = OrderedDict()
        self._running: dict[int, _Running] = {}

    def start(self, asked: Start, now_s: float) -> None:
        """A call began to run in a slot; told again, it began only now."""
        task, is_stolen = asked.task, asked.origin is Origin.STOLEN
        how, source = asked.origin.value, asked.samples_from
        row = TaskRow(str(task), task.stage, task.step, "running", is_stolen, how, now_s, samples_from=source)
        self._running[asked.call] = _Running(asked, row)

    def finish(self, call: int, done: Done, now_s: float) -> None:
        running = self._running.pop(call, None)
        if running is None:
            return
        history = self._history(running.asked.run)
        cost = _cost(history, running)
        if isinstance(running.asked.work, ChainWork):
            self._finish_chain(cost, running, done, now_s)
            return
        row = running.row
        row.state, row.ended, row.seconds = "done", now_s, now_s - row.started
        cost.add_busy(row.seconds)
        cost.add(_cost_name(running.asked.work, running.asked.task), row.seconds)
        self._keep(running, cost, [row])

    def _finish_chain(self, cost: StepCost, running: _Running, done: Done, now_s: float) -> None:
        """One row a stage: their own seconds, laid end to end so that the last one ends now. A partition that shared
        its slot had less of it than passed on the clock: its first stage began when it did."""
        own_s, task, rows = sum(made.seconds for made in done.made), running.asked.task, list[TaskRow]()
        is_shared, begin = at_once(running.asked.work) > 1, now_s - own_s
        cost.add_busy(own_s if is_shared else now_s - running.row.started)
        for made in done.made:
            row, began = running.row, begin
            begin += made.seconds
            if is_shared and not rows:
                began = min(began, row.started)
            name = f"{task.step}/{made.stage}/{task.part}"
            rows.append(
                replace(row, id=name, stage=made.stage, state="done", started=began, ended=begin, seconds=made.seconds)
            )
            cost.add(made.stage, made.seconds)
        self._keep(running, cost, rows)

    def fail(self, call: int, failed: Failed, now_s: float) -> None:
        running = self._running.pop(call, None)
        if running is None:
            return
        row = running.row
        row.state, row.ended, row.seconds, row.error = "failed", now_s, now_s - row.started, failed.error
        cost = _cost(self._history(running.asked.run), running)
        cost.add_busy(row.seconds / at_once(running.asked.work))
        self._keep(running, cost, [row])

    def stop(self, call: int, now_s: float) -> None:
        """The call was given up; what it cost stays counted."""
        running = self._running.pop(call, None)
        if running is not None:
            cost = _cost(self._history(running.asked.run), running)
            cost.add_busy((now_s - running.row.started) / at_once(running.asked.work))
            self._keep(running, cost, [])

    def rows(self, run: RunId, limit: int, since_step: int = 0, before_step: int = ANY_STEP) -> list[dict[str, Any]]:
        """The latest tasks of a run, running ones last, as plain maps."""
        history = self._runs.get(run)
        rows = list(history.finished) if history else []
        rows += [each.row for each in self._running.values() if each.asked.run == run]
        return [row.to_dict() for row in rows if since_step <= row.step < before_step][-limit:]

    def costs(self, run: RunId, since_step: int) -> dict[int, StepCost]:
        """By step; what earlier lives spent on it is in it once that was read."""
        history = self._runs.get(run)
        if history is None:
            return {}
        found: dict[int, StepCost] = {}
        for costs in (history.earlier or {}, history.steps):
            for step, cost in costs.items():
                if step >= since_step:
                    found.setdefault(step, StepCost()).add_all(cost)
        return found

    def has_read(self, run: RunId) -> bool:
        """Whether what earlier lives wrote of the run is known."""
        return run in self._runs and self._runs[run].earlier is not None

    def read(self, run: RunId) -> Earlier:
        """What earlier lives wrote of the run, for `learn`. Reads files: not for the loop's thread."""
        tasks = self._journal.read(run, TASKS, READ_BYTES)
        rows = [_row_of(entry) for entry in tasks if entry.get("life") != self._life]
        return Earlier(rows[-TASKS_KEPT:], costs_of(self._journal.read(run, COSTS, READ_BYTES), but=self._life))

    def learn(self, run: RunId, earlier: Earlier) -> None:
        """Take up what earlier lives wrote, once."""
        if not self.has_read(run):
            history = self._history(run)
            history.finished = deque([*earlier.rows, *history.finished], maxlen=TASKS_KEPT)
            history.earlier = earlier.costs

    def running(self) -> int:
        return len(self._running)

    def doing(self, now_s: float) -> list[dict[str, Any]]:
        """What runs now and for how many seconds, the oldest first."""
        rows = sorted(self._running.values(), key=lambda each: each.row.started)
        return [{"run": each.asked.run, "id": each.row.id, "for_s": now_s - each.row.started} for each in rows]

    def busy_s(self, run: RunId, since_step: int) -> float:
        """What the steps of a run have cost this node's slots."""
        return sum(cost.busy_s for cost in self.costs(run, since_step).values())

    def _keep(self, running: _Running, cost: StepCost, rows: list[TaskRow]) -> None:
        """What came of a call, in memory and on disk."""
        run, step = running.asked.run, _step_of(running)
        self._history(run).finished.extend(rows)
        for row in rows:
            self._journal.append(run, TASKS, {**row.to_dict(), "life": self._life})
        spent = {"life": self._life, "step": step, "busy_s": cost.busy_s, "seconds": dict(cost.seconds)}
        self._journal.append(run, COSTS, spent, replaces=step)

    def _history(self, run: RunId) -> _RunHistory:
        history = self._runs.setdefault(run, _RunHistory())
        self._runs.move_to_end(run)
        if len(self._runs) > RUNS_KEPT:
            self._runs.popitem(last=False)
        return history


def _cost(history: _RunHistory, running: _Running) -> StepCost:
    cost = history.steps.setdefault(_step_of(running), StepCost())
    if len(history.steps) > STEPS_KEPT:
        history.steps.popitem(last=False)
    return cost


def _step_of(running: _Running) -> int:
    return INIT_STEP if isinstance(running.asked.work, InitWork) else running.asked.task.step


def _row_of(entry: Mapping[str, Any]) -> TaskRow:
    return TaskRow(**{name: entry[name] for name in TaskRow.__slots__ if name in entry})


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
