"""The registry: which runs a node knows, how their statuses come, go and merge, and which clients wait for that.

A client is answered once enough nodes have its wish on disk. What each run does is run.py's.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..events import (
    Action,
    CancelRequested,
    Discard,
    Persist,
    Reply,
    Report,
    Restored,
    ResumeRequested,
    Rng,
    Send,
    StopRequested,
    Submitted,
)
from ..names import NodeId, RunId, run_id
from ..pipeline.grammar.problem import SpecError
from ..pipeline.spec import Pipeline
from ..run_state import status as runs
from ..run_state.run_state import MeshView, Revision
from ..steps.admission import is_header
from ..steps.roster import make_roster
from ..versions.saved import Saved
from ..wire.listing import listing_fault
from ..wire.steps import CheckpointPut, Header, RunAck, RunGet, RunPut, RunStates, StepMessage
from .run import Run
from .tombstones import TOMBSTONE_S, Tombstones
from .yielding import Yielding, may_go_on, those_waiting

MAX_RUNS = 1_024  # known at once, ended ones included; the oldest ended ones are forgotten for active ones
MAX_ACTIVE = 256  # further ones are refused until one has ended: each keeps books, and a file on disk
SUBMIT_COPIES = 2  # nodes that have a status on disk before the client is answered


@dataclass
class Waiting:
    """A client that waits until enough nodes have a run's status on disk."""

    request: int
    status: RunPut  # that they are to have, or one above it
    acks: set[NodeId]
    unkept: str  # how the run stands where no disk took it


class Registry:
    """The runs of one node."""

    def __init__(
        self,
        me: NodeId,
        restored: Sequence[Restored],
        saved: Sequence[Saved],
        unread: Iterable[tuple[RunId, str]],
        now: float,
        rng: Rng | None,
    ) -> None:
        """`restored`: the runs' statuses as they were persisted. `saved`: the checkpoints on this node's disk.
        `unread`: those that cannot be read, by run, in words. `rng`: chance, to choose whom to ask for work."""
        self.me = me
        self._rng = rng
        self.revision = Revision()
        self.runs: dict[RunId, Run] = {}
        self.opened = 0  # how often one was, perhaps anew
        self.unreadable: list[Report] = []  # of what was restored
        self._numbers = itertools.count(1)
        self._waiting: dict[RunId, list[Waiting]] = {}
        self._unkept: set[RunId] = set()  # whose status should be on this node's disk, and is not
        self._asked: dict[tuple[RunId, NodeId], float] = {}
        self._tombstones = Tombstones()
        self._yielding = Yielding()
        self._crowded_out: list[RunId] = []  # forgotten to make room; their disk is still to be told
        self._saved: dict[RunId, list[Saved]] = {}  # checkpoints of runs that are not known yet
        for checkpoint in saved:
            self._saved.setdefault(checkpoint.run, []).append(checkpoint)
        self._unread: dict[RunId, list[str]] = {}
        for owner, words in unread:
            self._unread.setdefault(owner, []).append(words)
        for each in restored:
            self._restore(now, each)

    # Taking up ------------------------------------------------------------------------------------------------------

    def _open(
        self, now: float, status: RunPut, pipeline: Pipeline, restored: bool, saved: Iterable[Header] = ()
    ) -> Run:
        spare = [run for run in self.runs.values() if run.has_ended and run.id not in self._waiting]
        spare.sort(key=lambda run: not run.state.is_cleared)  # first those of which nothing is left to free
        for run in spare[: max(0, len(self.runs.keys() | {status.run}) - MAX_RUNS)]:
            del self.runs[run.id]
            self._crowded_out.append(run.id)
        bare = replace(status, acknowledge=False, age_s=0.0)
        unread = () if runs.begins_anew(status) else self._unread.get(status.run, ())
        run = Run(self.me, bare, pipeline, self._numbers, restored, now, saved, unread, self._rng, self.revision)
        self.runs[run.id] = run
        self.opened += 1
        self.revision.bump()
        return run

    def _is_crowded(self) -> bool:
        return sum(not run.has_ended for run in self.runs.values()) >= MAX_ACTIVE

    @property
    def _is_full(self) -> bool:
        return len(self.runs) >= MAX_RUNS

    def _restore(self, now: float, kept: Restored) -> None:
        """Take up a run of an earlier life."""
        try:
            status = runs.load(kept.value)
            pipeline = Pipeline.from_canonical(status.spec)
        except (SpecError, ValueError, TypeError) as error:
            self.unreadable.append(Report("run.unreadable", {"run": kept.name, "error": str(error)}, "error"))
            return
        run = self._open(now, status, pipeline, True, self._found(status.run, pipeline, self.unreadable))
        if run.has_ended:
            self._tombstones.note(now, run.id, kept.age_s)

    def _found(self, run: RunId, pipeline: Pipeline, refused: list[Report]) -> list[Header]:
        """The run's checkpoints on this node's disk, as found at its start: those that are of its very spec."""
        headers = []
        for each in self._saved.pop(run, ()):
            if each.spec == pipeline.id and is_header(each.header, pipeline):
                headers.append(each.header)
            else:
                fields = {"run": run, "step": each.header.step, "version": each.header.id, "error": "of another spec"}
                refused.append(Report("checkpoint.refused", fields, "error"))
                self._unread.setdefault(run, []).append(f"step {each.header.step}: of another spec")
        return headers

    def _reopen(self, now: float, mesh: MeshView, status: RunPut) -> list[Action]:
        """A run that failed, noticed here or not, is active again: from the best that is left, what was refused
        included, since its disk may have been mended; or from version 0, and then nothing is left."""
        old = self.runs[status.run]
        out: list[Action] = []
        left = [*old.checkpoints.mine.values(), *(header for header, _ in old.checkpoints.refused.values())]
        from_start = runs.begins_anew(status)
        run = self._open(now, status, old.state.pipeline, restored=True, saved=() if from_start else left)
        if old.state.is_leaving:
            run.state.leave(old.state.drained_before)
        if from_start:
            old.ending.clear(out)
            out += [Discard(run.id, header.step, header.id) for header in left]
        elif not old.state.is_cleared:
            run.inherit(old, out)
        out += [run.state.persist(), Report("run.resumed", {"run": run.id, "attempt": status.attempt})]
        run.checkpoints.tell(mesh.living, out)
        return out

    def share_room(self, now: float, mesh: MeshView) -> list[Action]:
        """See that no run is stuck for want of room; one that gave way is taken up again when the other one can do
        without. Called now and then."""
        out: list[Action] = []
        self._yielding.reconcile(now, mesh, self.runs, out)
        for run in those_waiting(self.runs.values()):
            if not mesh.is_rejoining and may_go_on(run, self.runs):
                out += self._reopen(now, mesh, runs.resumed(run.status))
                self.runs[run.id].outbox.tell_all(mesh, self.runs[run.id].status, out)
        return out

    def sweep(self, now: float) -> list[Action]:
        """Forget what ended long ago, here and on disk; called now and then."""
        out: list[Action] = []
        for name in self._tombstones.take_old(now, self.runs):
            if self.runs[name].state.is_cleared:
                del self.runs[name]
                out.append(Report("run.forgotten", {"run": name}))
                self._crowded_out.append(name)
        out += [Persist(f"runs/{name}", b"") for name in self._crowded_out if name not in self.runs]
        self._crowded_out.clear()
        return out

    def _told(self, now: float, run: Run) -> RunPut:
        return replace(run.status, acknowledge=False, age_s=self._tombstones.age_s(now, run.id))

    # What clients want ----------------------------------------------------------------------------------------------

    def submit(self, now: float, mesh: MeshView, event: Submitted) -> list[Action]:
        try:
            pipeline = Pipeline.from_canonical(event.spec)
        except SpecError as error:
            return [_refusal(event.request, str(error), "run `dflow validate`", exit=2)]
        if fault := listing_fault(event.files):
            what = f"the list of its files cannot be sent: {fault}"
            return [_refusal(event.request, what, "name fewer, or pack many small ones into one", exit=2)]
        name = run_id(pipeline.text_id, event.submitter, event.nonce)
        out: list[Action] = []
        if name not in self.runs:
            if self._is_crowded():
                return [_refusal(event.request, f"{MAX_ACTIVE} runs are active", "cancel one, or wait for one", exit=1)]
            members = mesh.on_duty or mesh.living
            roster = make_roster(0, 0, members, members, mesh.slots)
            fields = (event.spec, event.base, event.files, event.submitter, event.nonce, roster, b"")
            run = self._open(now, RunPut(name, runs.ACTIVE, 0, *fields, False), pipeline, restored=False)
            is_alone = len(mesh.living) == 1  # nobody else could vouch for it: then it is taken now, or not at all
            kept = replace(run.state.persist(), or_never=is_alone)
            out += [kept, Report("run.submitted", {"run": name, "name": pipeline.name})]
        return out + self._spread(mesh.living, self.runs[name], event.request, "is not taken")

    def cancel(self, mesh: MeshView, event: CancelRequested) -> list[Action]:
        run = self.runs.get(event.run)
        if run is None:
            return [_unknown(event.request, event.run)]
        out: list[Action] = []
        if not run.has_ended:
            run.outbox.end(runs.CANCELLED, {}, mesh, out)
        return out + self._spread(mesh.living, run, event.request, "is cancelled all the same, until a restart")

    def stop(self, mesh: MeshView, event: StopRequested) -> list[Action]:
        """Stop a run where it is: who holds its newest version saves it, as when it failed, and it can be resumed."""
        run = self.runs.get(event.run)
        if run is None:
            return [_unknown(event.request, event.run)]
        out: list[Action] = []
        if not run.has_ended:
            run.outbox.end(runs.FAILED, {runs.STOPPED: True}, mesh, out)
        return out + self._spread(mesh.living, run, event.request, "is stopped all the same, until a restart")

    def resume(self, now: float, mesh: MeshView, event: ResumeRequested) -> list[Action]:
        """Let a failed or stopped run go on, or one that waits for the larger part of a split."""
        run = self.runs.get(event.run)
        if run is None:
            return [_unknown(event.request, event.run)]
        if run.status.state == runs.FAILED:
            out = self._reopen(now, mesh, runs.resumed(run.status, event.from_start))
            going_on = "goes on all the same, until a restart"
            return out + self._spread(mesh.living, self.runs[run.id], event.request, going_on)
        if run.is_active and run.state.is_paused and not event.from_start:
            out = []
            run.go_on(now, mesh, out)
            return [*out, Reply(event.request, True, {"run": run.id, "state": run.summary()["state"]})]
        what = (
            f"run {run.id} is {run.summary()['state']}: only one that failed, was stopped or is paused can be resumed"
        )
        if event.from_start:
            what = f"run {run.id} is {run.summary()['state']}: only one that failed, or was stopped, can begin again"
        hint = "`dflow ps` lists how runs stand; submitting its spec again makes a new run"
        return [_refusal(event.request, what, hint, exit=2)]

    def _spread(self, living: Collection[NodeId], run: Run, request: int, unkept: str) -> list[Action]:
        """Put a status to everybody; the client is answered once enough of them have it on disk. `unkept`: how it is
        with the run where this node is the only one, and its disk does not take it."""
        waiting = Waiting(request, run.status, {self.me}, unkept)
        if run.id in self._unkept:
            waiting.acks.clear()
        self._waiting.setdefault(run.id, []).append(waiting)
        return [*self._put(living, run.id, [waiting]), *self._answer(living, run)]

    def put_again(self, living: Collection[NodeId]) -> list[Action]:
        """To who did not acknowledge what a client waits for; who waited for one that has died since is answered."""
        answers = [action for name in list(self._waiting) for action in self._answer(living, self.runs[name])]
        puts = [action for name, waiting in self._waiting.items() for action in self._put(living, name, waiting)]
        return [*answers, *puts]

    def _put(self, living: Collection[NodeId], name: RunId, waiting: list[Waiting]) -> list[Action]:
        missing = {node for node in living if any(node not in each.acks for each in waiting)}
        status = replace(self.runs[name].status, acknowledge=True)
        return [Send(node, status) for node in sorted(missing)]

    def not_persisted(self, key: str, is_given_up: bool) -> list[Action]:
        """The disk did not take it: until it does, this node counts for none of those that have the status on disk. A
        run that was to be taken at once or not at all is forgotten: its client was told no."""
        if is_given_up:
            return [action for name in self._named(key) for action in self._take_back(name)]
        self._unkept &= self.runs.keys()
        for name in self._named(key):
            self._unkept.add(name)
            for waiting in self._waiting.get(name, ()):
                waiting.acks.discard(self.me)
        return []

    def _take_back(self, name: RunId) -> list[Action]:
        """Forget a run that was just submitted: what it began is stopped, and nothing of it stays."""
        run = self.runs.pop(name)
        self.revision.bump()
        self._waiting.pop(name, None)
        out: list[Action] = []
        run.ending.clear(out)
        return [*out, Report("run.taken_back", {"run": name}), Persist(f"runs/{name}", b"")]

    def persisted(self, living: Collection[NodeId], key: str) -> list[Action]:
        """The newest value is on disk after all."""
        out: list[Action] = []
        for name in self._named(key):
            self._unkept.discard(name)
            for waiting in self._waiting.get(name, ()):
                waiting.acks.add(self.me)
            out += self._answer(living, self.runs[name])
        return out

    def _named(self, key: str) -> list[RunId]:
        """The run whose status is kept under this key, if it is known."""
        return [name for name in (RunId(key.removeprefix("runs/")),) if key.startswith("runs/") and name in self.runs]

    def _answer(self, living: Collection[NodeId], run: Run) -> list[Action]:
        enough = min(SUBMIT_COPIES, len(living))
        out: list[Action] = []
        for waiting in list(self._waiting.get(run.id, ())):
            if len(waiting.acks) >= enough:
                self._waiting[run.id].remove(waiting)
                said = {"run": run.id, "state": run.summary()["state"]}
                out.append(Reply(waiting.request, True, said, _unkept(run.id, waiting.unkept)))
        if not self._waiting.get(run.id):
            self._waiting.pop(run.id, None)
        return out

    # What members say -----------------------------------------------------------------------------------------------

    def take(self, now: float, mesh: MeshView, source: NodeId, status: RunPut) -> list[Action]:
        """A run's status from a member: kept on disk, then acknowledged."""
        if not runs.is_sound(status):
            return [_refused(source, status, "its state or outcome is none")]
        known = self.runs.get(status.run)
        if known is not None:
            out = self._merge(now, mesh, source, known, status)
        elif status.state != runs.ACTIVE and status.age_s >= TOMBSTONE_S:
            return []  # forgotten here, and soon there
        elif runs.has_ended(status) and self._is_full:
            return []  # perhaps forgotten for others: what went for it would be told of again, in turn
        elif not runs.has_ended(status) and self._is_crowded():
            return [_refused(source, status, f"{MAX_ACTIVE} runs are active")]
        else:
            try:
                pipeline = Pipeline.from_canonical(status.spec)
            except (SpecError, ValueError, TypeError) as error:
                return [_refused(source, status, str(error))]
            if run_id(pipeline.text_id, status.submitter, status.nonce) != status.run:
                return [_refused(source, status, "its id is not that of its spec")]
            refused: list[Report] = []
            is_new = status.acknowledge and status.attempt == 0  # a client waits; else the run may have got somewhere
            run = self._open(now, status, pipeline, not is_new, self._found(status.run, pipeline, refused))
            if run.has_ended:
                self._tombstones.note(now, run.id, status.age_s)
            out = [
                *refused,
                replace(run.state.persist(), age_s=status.age_s),
                Report("run.heard", {"run": run.id, "name": pipeline.name, "from": source}),
            ]
        if status.acknowledge and status.run not in self._unkept:
            mine = self.runs[status.run].status
            out.append(Send(source, RunAck(mine.run, mine.state, mine.attempt)))
        return out

    def _merge(self, now: float, mesh: MeshView, source: NodeId, run: Run, status: RunPut) -> list[Action]:
        """What a member knows of a run that is known here; who is behind is told."""
        attempt = run.status.attempt
        if run.state.take_status(status):
            if run.is_active and runs.is_later(run.status.attempt, attempt):
                return self._reopen(now, mesh, run.status)  # its books are of an attempt that failed, heard or not
            ended = [] if run.is_active else [run.state.end_report({"state": run.status.state})]
            if run.has_ended:
                self._tombstones.note(now, run.id, status.age_s)
            return [replace(run.state.persist(), age_s=status.age_s), *ended]
        mine = run.status
        if runs.is_above(mine, status) and not status.acknowledge and self.is_due_again(now, mesh, run.id, source):
            return [Send(source, self._told(now, run))]
        return []

    def deliver(self, now: float, mesh: MeshView, source: NodeId, message: StepMessage) -> list[Action]:
        """What a member says in a run. Who still works on one that has ended here missed its end, and waits for
        answers: where it stands was acknowledged before, so no heartbeat of it says so again."""
        run = self.runs.get(message.run)
        if run is None:
            return self.ask(now, mesh, source, message.run)
        is_over = not run.is_active and not isinstance(message, CheckpointPut)  # which is told of ended runs, too
        out = run.take(now, mesh, source, message)
        if is_over and self.is_due_again(now, mesh, run.id, source):
            out += self.tell(now, source, run.id)
        return out

    def tell(self, now: float, source: NodeId, run: RunId) -> list[Action]:
        """Answer who asks what a run is."""
        known = self.runs.get(run)
        return [] if known is None else [Send(source, self._told(now, known))]

    def compare(self, source: NodeId, message: RunStates) -> list[Action]:
        """How runs ended elsewhere: ask where that is news."""
        told = {name: (state, outcome) for name, state, outcome in message.states}
        mine = {name: (run.status.state, runs.outcome_id(run.status)) for name, run in self.runs.items()}
        news = [name for name, end in told.items() if mine.get(name) != end and (name in mine or not self._is_full)]
        return [Send(source, RunGet(name)) for name in news]

    def acknowledged(self, living: Collection[NodeId], source: NodeId, ack: RunAck) -> list[Action]:
        run = self.runs.get(ack.run)
        if run is None or ack.state not in runs.RANK:
            return []
        for waiting in self._waiting.get(ack.run, ()):
            if not runs.is_above(waiting.status, ack):
                waiting.acks.add(source)
        return self._answer(living, run)

    def ask(self, now: float, mesh: MeshView, source: NodeId, run: RunId) -> list[Action]:
        """A member speaks of a run that is unknown here: what is it?"""
        return [Send(source, RunGet(run))] if self.is_due_again(now, mesh, run, source) else []

    def is_due_again(self, now: float, mesh: MeshView, run: RunId, source: NodeId) -> bool:
        """Limits what is said to one member about one run, outside of that run, to a few times a suspicion."""
        period = mesh.suspicion_s / 4
        if now - self._asked.get((run, source), -period) < period:
            return False
        if len(self._asked) >= MAX_RUNS:
            self._asked.pop(next(iter(self._asked)))
        self._asked[(run, source)] = now
        return True


def _refusal(request: int, what: str, hint: str, exit: int) -> Reply:
    return Reply(request, False, {"what": what, "hint": hint, "exit": exit})


def _unkept(run: RunId, standing: str) -> dict[str, Any]:
    what = f"run {run} {standing}: this daemon could not write it to its state directory"
    hint = "free some of that disk, or ask another daemon; `dflow doctor` says more, `dflow ps` how the run stands"
    return {"what": what, "hint": hint, "exit": 1}


def _unknown(request: int, run: RunId) -> Reply:
    return Reply(request, False, {"what": f"no run {run}", "hint": "list runs with `dflow ps`"})


def _refused(source: NodeId, status: RunPut, error: str) -> Report:
    return Report("run.refused", {"run": status.run, "from": source, "error": error}, "warning")
