"""Outcomes: what becomes of a run when a work of it is done, or came to nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import isfinite

from ..claiming.failure import Failures
from ..controllers.advance import Advance
from ..controllers.alarm import Alarm
from ..controllers.beginning import Beginning
from ..controllers.checkpoints import Checkpoints
from ..controllers.quarantine import Quarantine
from ..events import Action, Report
from ..metrics import NONFINITE_LEAF_MIN, NONFINITE_LEAVES, UPDATE_SKIPPED
from ..names import Block, NodeId, RunId, ShardId, TaskKey
from ..ranges import State, in_order
from ..run_state.calls import Calls
from ..run_state.outbox import Outbox
from ..run_state.run_state import Call, MeshView, RunState
from ..versions import coefficients, kept, lagged
from ..wire.steps import Failure, FailurePut, Header, Record
from ..work import (
    ApplyWork,
    BlockWork,
    ChainWork,
    Done,
    Failed,
    InitWork,
    LoadWork,
    Product,
    SaveWork,
    SliceWork,
    SumWork,
    made_by,
)

RETRY_AFTER = 0.5  # suspicion times before a unit that failed here is tried again
ROOM_AFTER = 4.0  # suspicion times before one that found no room is, unless room is made before
DIVERGED = "is not finite: the training diverged"


class Outcomes:
    """Those of one run's calls at one node."""

    def __init__(
        self,
        state: RunState,
        calls: Calls,
        outbox: Outbox,
        advance: Advance,
        beginning: Beginning,
        checkpoints: Checkpoints,
        quarantine: Quarantine,
        alarm: Alarm,
    ) -> None:
        self._state = state
        self._calls = calls
        self._outbox = outbox
        self._advance = advance
        self._beginning = beginning
        self._checkpoints = checkpoints
        self._quarantine = quarantine
        self._alarm = alarm

    def finished(self, now: float, mesh: MeshView, number: int, done: Done, out: list[Action]) -> None:
        """A work of this run gave shards: note what they are, and tell who needs to know."""
        state, call = self._state, self._calls.take(number)
        if call is None:
            return
        self._alarm.done(call, out)
        is_state = made_by(call.work) is Product.STATE
        for ref in (ref for made in done.made for _, ref in made.outputs):  # also what nobody will want: to be freed
            state.holdings.keep(ref, is_state)
        failed = _not_finite(call, done)
        if failed is not None:
            self._failed(now, mesh, call, failed, out)
            return
        out += _skipped(state.id, call, done)
        match call.work:
            case InitWork():
                self._first(in_order(entry for made in done.made for entry in made.outputs))
                self._advance.moved(now, mesh, None, {}, out)
            case SaveWork(header=header):
                self._checkpoints.saved(mesh, header, done.detail, out)
            case LoadWork(header=header):
                self._beginning.loaded(now, mesh, header, done, out)
            case ApplyWork():
                self._advance.applied(now, mesh, call, done, out)
            case _:
                self._record(now, mesh, call, done, out)

    def _first(self, made: State) -> None:
        """Hold version 0."""
        pipeline = self._state.pipeline
        state = kept.carry(pipeline, 0, None, lagged.carry(pipeline, None, made))
        self._state.versions.hold(Header(None, 0, 0, self._state.spec, state, (), coefficients.first(pipeline)))

    def _record(self, now: float, mesh: MeshView, call: Call, done: Done, out: list[Action]) -> None:
        """One record a stage; each reads what its work read and all that the stages before it made."""
        work, part, reads = call.work, call.unit.part, call.reads
        if isinstance(work, BlockWork):  # which is trimmed too late if the engine is past it
            part = Block(work.first, work.end)
        records = []
        for made in done.made:
            task = TaskKey(call.unit.step, made.stage, made.block or part)
            records.append(Record(task, reads, made.outputs, made.groups, tuple(sorted(made.metrics))))
            if isinstance(work, ChainWork):
                reads += tuple(ref.id for _, ref in made.outputs)
        if isinstance(work, BlockWork | ChainWork):
            self._calls.took(now, call.unit, done)
        state = self._state
        out += state.ability.succeeded(call.unit)
        position = state.position
        if position is None or not state.is_of(call, position):
            return
        view = state.view(now, mesh, position, call.unit.step)
        if isinstance(work, BlockWork | SumWork):  # the reconcile that follows says which of them others hear of
            view.step.keep_back(records)
            return
        for record in records:
            view.step.add(record, own=True)
        readers = view.trainers if isinstance(work, SliceWork) else ()
        self._outbox.put_records(view, records, out, state.loans.owners([call.unit]), readers, done.short)

    def broke(self, now: float, mesh: MeshView, number: int, failed: Failed, out: list[Action]) -> None:
        """A work of this run gave nothing."""
        call = self._calls.take(number)
        if call is not None:
            self._failed(now, mesh, call, failed, out)

    def _failed(self, now: float, mesh: MeshView, call: Call, failed: Failed, out: list[Action]) -> None:
        state, unit = self._state, call.unit
        state.retry(unit, now + RETRY_AFTER * mesh.suspicion_s)
        if failed.kind == "lost":
            state.lose(now, ShardId(failed.blame))
            return
        fields = {"run": state.id, "task": str(unit), "kind": failed.kind, "error": failed.error}
        out.append(Report("task.failed", fields, "warning"))
        if failed.kind == "full" or isinstance(call.work, SaveWork):
            state.retry(unit, now + ROOM_AFTER * mesh.suspicion_s)
            if failed.kind == "full":
                state.found_no_room(now)
                self._calls.found_no_room(unit)
                self._give_back(now, mesh, unit, out)
            return
        if failed.kind == "stopped":
            self._give_back(now, mesh, unit, out)
            return
        if isinstance(call.work, LoadWork):
            failure = self._beginning.load_failed(now, mesh, call.work.header, failed, out)
            if failure is not None:
                self._tell_failure(now, mesh, failure, out)
            return
        error = f"stage `{failed.blame}`: {failed.error}" if failed.blame else failed.error
        if isinstance(call.work, ApplyWork):
            self._advance.failed(call, error, out)
        state.loans.give_up(unit)
        reports = state.ability.failed(now, mesh.suspicion_s, unit, error, failed.kind == "host")
        if reports:  # others take this node's share at once
            self._outbox.tell_all(mesh, None, out)
            self._calls.stop_queued({each.stage for each in state.ability.withdrawn}, out)
        out += reports
        if failed.kind == "user":
            # The user's code is at fault, or this unit: its second try tells, before anything else of the stage begins.
            # A function that never returns costs the time of two tries, however many units wait for it.
            self._calls.stop_queued({unit.stage}, out)
        self._tell_failure(now, mesh, state.failures.record(unit, state.me, failed.kind, error), out)

    def _tell_failure(self, now: float, mesh: MeshView, failure: Failure, out: list[Action]) -> None:
        if failure.attempt <= Failures.ANY_ERROR:  # more would say nothing new
            self._outbox.tell_all(mesh, FailurePut(self._state.id, self._state.status.attempt, (failure,)), out)
        self._put_claims(now, mesh, out)
        self._quarantine.judge(now, mesh, out)

    def _give_back(self, now: float, mesh: MeshView, unit: TaskKey, out: list[Action]) -> None:
        """It did not fail, and somebody else may do it; whom it was taken from hears so, too."""
        owners = self._state.loans.concerned()
        self._state.loans.give_up(unit)
        self._put_claims(now, mesh, out, owners)

    def _put_claims(self, now: float, mesh: MeshView, out: list[Action], owners: Iterable[NodeId] = ()) -> None:
        """What is left of them: another node may try the rest at once."""
        position = self._state.position
        if position is not None:
            self._outbox.put_all_claims(self._state.views(now, mesh, position), out, owners)


def _skipped(run: RunId, call: Call, done: Done) -> Iterator[Action]:
    """Reports of what a step leaves out, because it is not finite or has no score."""
    for made in done.made:
        figures = dict(made.metrics)
        told = {"run": run, "step": call.unit.step, "stage": made.stage}
        if isinstance(call.work, BlockWork) and NONFINITE_LEAF_MIN in figures:
            leaf = int(figures[NONFINITE_LEAF_MIN])
            yield Report("leaf.not_finite", {**told, "leaf": leaf, "leaves": int(figures[NONFINITE_LEAVES])}, "warning")
        if isinstance(call.work, ApplyWork) and UPDATE_SKIPPED in figures:
            yield Report("update.skipped", told, "warning")
        if made.note:
            yield Report("reward.failed", {**told, "task": str(call.unit), "error": made.note}, "warning")


def _not_finite(call: Call, done: Done) -> Failed | None:
    """The failure that a figure which is no number stands for, if there is one."""
    broken = [(made.stage, name) for made in done.made for name, value in made.metrics if not isfinite(value)]
    if not broken:
        return None
    stage, names = broken[0][0], ", ".join(name for stage, name in broken if stage == broken[0][0])
    what = "is not a finite number" if isinstance(call.work, ChainWork) else DIVERGED
    return Failed("user", f"{names} of `{stage}` {what}")
