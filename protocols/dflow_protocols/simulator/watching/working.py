"""What is worked on: each thing once where nothing breaks, and given up for a reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ...claiming.ability import WITHDRAW_AFTER
from ...events import Broke, Finished, Report, Start, Stop
from ...names import NodeId, RunId, TaskKey
from ...wire.steps import Header
from ...work import BlockWork, ChainWork, LoadWork, SliceWork
from ..model.host import Host
from ..world import World
from .checker import Checker, Seen, Steady, done_by, node_of, on_duty_at, others_claim, state_of

ORPHANED_AFTER = 2.0  # suspicion times, at most, in which a silent home keeps what it is dealt
TWICE_SHARE = 0.1  # of all units, done twice in a calm world: thefts that cross


@dataclass(frozen=True, slots=True)
class _Begun:
    """A call, and where its node was in the run when it began it."""

    start: Start
    position: Header | None
    attempt: int


class Working(Checker):
    """`done_once`, `stops_for_reason`, `failed_moves_on`, `broken_rests`."""

    def __init__(self, world: World, steady: Steady) -> None:
        super().__init__(world, steady)
        self._begun: dict[tuple[NodeId, int, int], _Begun] = {}  # by node, life, call
        self._agreed: set[tuple[NodeId, int, int]] = set()  # of these, those that were begun when all was well
        self._done: Counter[tuple[RunId, TaskKey]] = Counter()  # of those
        self._failed: dict[tuple[RunId, TaskKey], dict[tuple[NodeId, int], NodeId]] = {}  # where, by life; as whom
        self._in_a_row: dict[tuple[NodeId, RunId, str], set[TaskKey]] = {}  # of a stage, failed at a node

    @property
    def sees(self) -> Seen:
        return {
            Start: self._started,
            Stop: self._stopped,
            "operator.withdrawn": self._withdrew,
            "run.resumed": self._resumed,
        }

    @property
    def hears(self) -> Seen:
        return {Finished: self._finished, Broke: self._broke}

    def _started(self, host: Host, start: Start) -> None:
        state = state_of(host, start.run)
        key = host.place, host.lives, start.call
        position, attempt = (None, 0) if state is None else (state.position, state.status.attempt)
        self._begun[key] = _Begun(start, position, attempt)
        if self.steady.seconds > 0.0:
            self._agreed.add(key)
        self._tries_again(host, start)

    def _tries_again(self, host: Host, start: Start) -> None:
        """A task that failed here, while others can do it at whom it did not. Who was not there for as long as a home
        is waited for may be silent yet, and what it is dealt an orphan."""
        state, failed = state_of(host, start.run), self._failed.get((start.run, start.task), {})
        patience_s = ORPHANED_AFTER * node_of(host).membership.suspicion_s()
        if state is None or (host.place, host.lives) not in failed or self.steady.seconds <= patience_s:
            return
        gone = {node for node in on_duty_at(host) if state.ability.withdrawn_at(node, host.id)}
        others = (on_duty_at(host) & self._fit(start)) - set(failed.values()) - gone
        if others:
            what = f"{host.name} tries {start.task} again, at which it failed, and {len(others)} others did not"
            raise self.broken(what, "failed_moves_on")

    def _fit(self, start: Start) -> set[NodeId]:
        """Who offers what a work requires."""
        stages = start.work.stages if isinstance(start.work, ChainWork) else ()
        pipeline = self.world.engines[start.run].pipeline
        needs = {word for stage in stages for word in pipeline.stage(stage).requires}
        return {host.id for host in self.world.live() if needs.issubset(host.roles)}

    def _broke(self, host: Host, event: Broke) -> None:
        start = self._begun[host.place, host.lives, event.call].start
        if event.failed.kind not in ("engine", "user") or not isinstance(start.work, ChainWork | BlockWork | SliceWork):
            return
        self._failed.setdefault((start.run, start.task), {})[host.place, host.lives] = host.id
        state = state_of(host, start.run)
        if state is not None and start.task.stage in state.ability.withdrawn_at(host.id, host.id):
            return  # it has withdrawn, and goes on where everybody has
        row = self._in_a_row.setdefault((host.place, start.run, start.task.stage), set())
        row.add(start.task)
        if len(row) > WITHDRAW_AFTER + host.slot_count:
            what = f"{host.name} failed {len(row)} different tasks of {start.task.stage} in a row and goes on"
            raise self.broken(what, "broken_rests")

    def _withdrew(self, host: Host, report: Report) -> None:
        self._in_a_row.pop((host.place, report.fields["run"], report.fields["stage"]), None)

    def _resumed(self, host: Host, report: Report) -> None:
        """Its books of failures are empty again."""
        self._failed = {key: at for key, at in self._failed.items() if key[0] != report.fields["run"]}
        self._in_a_row = {key: row for key, row in self._in_a_row.items() if key[1] != report.fields["run"]}

    def _finished(self, host: Host, event: Finished) -> None:
        key = host.place, host.lives, event.call
        start = self._begun[key].start
        if isinstance(start.work, ChainWork | BlockWork | SliceWork):
            self._done[start.run, self.world.engines[start.run].done_first(done_by(start))] += key in self._agreed
            self._in_a_row.pop((host.place, start.run, start.task.stage), None)

    def end(self) -> None:
        """Counted where nothing struck at all and no machine is worse than others, from when all knew each other on: a
        mesh that is young is dealt its work by members who each know others of it."""
        again = sum(max(0, times - 1) for times in self._done.values())
        if any(report.name == "run.branch_lost" for _, report in self.world.reports):
            return  # each made a version of its own, as wild engines do: what began on the others counts for nothing
        if not self.world.struck and self.is_quiet() and again > 1 + TWICE_SHARE * len(self._done):
            raise self.broken(f"nothing broke, and of {len(self._done)} units {again} were done again", "done_once")

    def _stopped(self, host: Host, stop: Stop) -> None:
        begun = self._begun[host.place, host.lives, stop.call]
        if not _reason(host, begun):
            raise self.broken(f"{host.name} gives up {begun.start.task} for no reason", "stops_for_reason")


def _reason(host: Host, begun: _Begun) -> str:
    """Why a node gives up a call, as far as it knows. Empty: for nothing."""
    start = begun.start
    state, node = state_of(host, start.run), node_of(host)
    if state is None or not state.is_active or isinstance(start.work, LoadWork):
        return "it is over"
    if state.is_leaving or host.is_drained or node.membership.silenced_by is not None:
        return "it takes no more work"
    if host.process is not None and not host.process.slots.has_devices:
        return "its devices failed"
    if state.position != begun.position:
        return "another version"
    if state.status.attempt != begun.attempt:
        return "another attempt, and it heard nothing of the end of the one before"
    if any(unit in state.loans.lent or others_claim(state, unit) for unit in start.task.singles):
        return "somebody else has it"
    if start.task.stage in state.ability.withdrawn_at(host.id, host.id) or not state.ability.may_run(
        (start.task.stage,)
    ):
        return "it has withdrawn"
    failed = [each for step in state.steps for each in state.failures.of_step(host.id, step)]  # of all that are open
    if any(each.kind == "user" and each.task.stage == start.task.stage for each in failed):
        return "the second try of its stage's code goes first"
    return ""
