"""What is bounded: how often a task may fail, what a store holds, how long a node's tables get (docs/bounds.md)."""

from __future__ import annotations

from collections.abc import Iterator

from ...claiming.failure import Failures
from ...controllers.advance import UNCOMMITTED
from ...controllers.ending import BEGUN, PINNED
from ...events import Broke, Report, Start
from ...names import NodeId, RunId, TaskKey
from ...node import MAX_CALLS
from ...run_state.run_state import MAX_KEPT, STEPS_AHEAD, RunState
from ...runs.registry import MAX_RUNS
from ...steps.patience import Wait
from ...steps.step import MAX_PER_TASK, MAX_SEALS
from ...versions.catch_up import FOLLOWED_STEPS
from ...work import BlockWork, ChainWork, SliceWork
from ..model.host import Host
from ..world import World
from .checker import Checker, Seen, Steady, node_of, state_of

AT_WORK = 1  # of a task that fails everywhere: as often as it may fail, and once more where two had begun it
MEASURE_S = 1.0  # from one look at all tables to the next


class Limits(Checker):
    """`task_gives_up`, `within_bounds`."""

    def __init__(self, world: World, steady: Steady) -> None:
        super().__init__(world, steady)
        self._begun: dict[tuple[NodeId, int, int], Start] = {}  # by place, life and call
        self._failed: dict[tuple[RunId, TaskKey], int] = {}  # while all was steady
        self._withdrew: set[RunId] = set()  # of these failures do not count that are the host's
        self._measured_at = 0.0

    @property
    def sees(self) -> Seen:
        return {Start: self._started, "operator.withdrawn": self._withdraws, "run.resumed": self._resumed}

    @property
    def hears(self) -> Seen:
        return {Broke: self._broke}

    def _started(self, host: Host, start: Start) -> None:
        if self.steady.seconds > 0.0 and isinstance(start.work, ChainWork | BlockWork | SliceWork):
            self._begun[host.place, host.lives, start.call] = start

    def _withdraws(self, host: Host, report: Report) -> None:
        self._withdrew.add(report.fields["run"])

    def _resumed(self, host: Host, report: Report) -> None:
        self._failed = {key: times for key, times in self._failed.items() if key[0] != report.fields["run"]}

    def _broke(self, host: Host, event: Broke) -> None:
        start = self._begun.pop((host.place, host.lives, event.call), None)
        if start is None or event.failed.kind not in ("engine", "user") or start.run in self._withdrew:
            return
        if any(_lacks_company(each, start) for each in self.world.hosts):
            return  # who is gone, or has not the files, may yet show that the task is good
        key = start.run, start.task
        self._failed[key] = self._failed.get(key, 0) + 1
        if self._failed[key] > Failures.ANY_ERROR + AT_WORK:
            raise self.broken(f"{start.task} failed {self._failed[key]} times, and is tried again", "task_gives_up")

    def inspect(self) -> None:
        for host in self.world.live():
            store = host.store
            if store.limit_bytes is not None and store.held_bytes > store.limit_bytes:
                what = f"{host.name} holds {store.held_bytes} bytes, and may {store.limit_bytes}"
                raise self.broken(what, "within_bounds")
        if self.world.now - self._measured_at >= MEASURE_S:
            self._measured_at = self.world.now
            for host in self.world.live():
                self._measure(host)

    def _measure(self, host: Host) -> None:
        node = node_of(host)
        tables = [("runs", len(node.runs), MAX_RUNS), ("calls", len(host.calls), MAX_CALLS)]
        for run in node.runs.values():
            tables += _tables(run.state, len(self.world.hosts))  # one may speak before it is known as a member
        for name, entries, most in tables:
            if entries > most:
                raise self.broken(f"{host.name} has {entries} {name}, and may have {most}", "within_bounds")


def _lacks_company(host: Host, start: Start) -> bool:
    """Whether it is down, or waits until most of the roster can try what failed."""
    state = state_of(host, start.run)
    step = None if state is None else state.steps.get(start.task.step)
    return host.process is None or (step is not None and step.patience.is_waiting(Wait.COMPANY))


def _tables(state: RunState, members: int) -> Iterator[tuple[str, int, int]]:
    """Of a run's books: what it is, how many entries it has, and may have."""
    is_late = state.catch_up.pinned is not None
    ahead = STEPS_AHEAD + state.pipeline.ahead
    steps = UNCOMMITTED + 2 + ahead + BEGUN + (FOLLOWED_STEPS + 2 if is_late or state.versions.pins else 0)
    yield "steps with books", len(state.steps), steps
    yield "steps whose progress is known", len(state.progress), steps
    yield "versions", len(state.versions.held), UNCOMMITTED + 3 + (PINNED if state.versions.pins else 0)
    yield "claims of versions", len(state.versions.claims), members
    yield "failures", len(state.failures.known), members * Failures.MAX_OF_A_NODE
    yield "shards kept for others", len(state.keep_for), MAX_KEPT
    for step in state.steps.values():
        yield f"seals of step {step.number}", len(step.seals), MAX_SEALS
        for task, records in step.records.items():
            yield f"records of {task}", len(records), MAX_PER_TASK + len(step.mine)
