"""One run at one node: its state, the controllers that act on it, and the order in which they do.

`reconcile()` is the whole of it: from the state alone it derives what is due (steps/duties.py), what to seal
(steps/sealing.py), what to copy (versions/catch_up.py) and what to free, and emits the difference to what is under
way. Every input changes the state, and at most answers or tells. So any message may be lost, and any node may stop,
without a case of its own.
"""

from __future__ import annotations

import traceback
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..controllers.advance import UNCOMMITTED, Advance
from ..controllers.alarm import Alarm
from ..controllers.beginning import Beginning
from ..controllers.carrying import Carrying
from ..controllers.checkpoints import Checkpoints
from ..controllers.draining import Draining
from ..controllers.ending import BEGUN, PINNED, Ending
from ..controllers.files import Files
from ..controllers.leaving import Leaving
from ..controllers.quarantine import Quarantine
from ..controllers.rosters import Rosters
from ..controllers.sealer import Sealer
from ..controllers.stealing import Open, Stealing
from ..events import Action, Drop, FetchAdvanced, Fetched, FetchFailed, FilesFound, Report, Rng
from ..names import MANIFEST, UPDATE, NodeId, RunId, ShardId
from ..pipeline.plan import Chain
from ..pipeline.schedule import Schedule
from ..pipeline.spec import Pipeline
from ..run_state import status as runs
from ..run_state.calls import Calls, FreeSlots
from ..run_state.outbox import Outbox, is_few
from ..run_state.run_state import MeshView, Revision, RunState
from ..shards.holdings import RETRY_S
from ..steps.batch import Batch
from ..steps.duties import OpenDuties
from ..steps.duty import Due, Duty, in_order, watch_homes
from ..steps.sealing import is_read, sealed_chains
from ..steps.view import StepView
from ..wire.heartbeat import Heartbeat
from ..wire.steps import CheckpointPut, Header, RunPut, Seal
from ..work import ApplyWork, Done, Failed, inputs_of
from .anti_entropy import AntiEntropy
from .inbox import Inbox
from .outcomes import Outcomes
from .relaying import Relaying
from .summary import summary

MAX_ERROR = 500  # characters of an error that a report has


class Run:
    """See the module. Knows nothing of sockets, engines or other runs."""

    def __init__(
        self,
        me: NodeId,
        status: RunPut,
        pipeline: Pipeline,
        numbers: Iterator[int],
        restored: bool,
        now: float,
        saved: Iterable[Header] = (),
        unread: Iterable[str] = (),
        rng: Rng | None = None,
        revision: Revision | None = None,
    ) -> None:
        """`numbers`: of calls, one sequence for all runs of a node. `restored`: it may have got somewhere before.
        `saved`: the checkpoints of it on this node's disk. `unread`: those that cannot be read. `rng`: chance, to
        choose whom to ask for work; without it nothing is stolen. `revision`: of all runs of this node."""
        self.state = state = RunState(me, status, pipeline, now, restored, revision or Revision())
        self._duties: dict[int, OpenDuties] = {}  # by open step
        self._fault = ""  # of this program, that showed last
        self.outbox = outbox = Outbox(state)
        self.calls = calls = Calls(state, numbers)
        self.checkpoints = Checkpoints(state, calls, outbox, saved, unread)
        self.advance = Advance(state, outbox)
        self.rosters = Rosters(state, outbox)
        self.carrying = Carrying(state)
        self.sealer = Sealer(state, self.rosters, outbox)
        self.quarantine = Quarantine(state, outbox)
        self.stealing = Stealing(state, calls, outbox, rng)
        self.alarm = Alarm(state, self.checkpoints, self.stealing)
        self.ending = Ending(state, calls, self.checkpoints, outbox)
        self.leaving = Leaving(state, calls, self.checkpoints, self.stealing, outbox)
        self.draining = Draining(state, calls, self.sealer, self.stealing, outbox)
        self.files = Files(state, calls, self.stealing, outbox)
        self.beginning = Beginning(state, calls, self.checkpoints, self.advance, outbox)
        self.anti_entropy = AntiEntropy(state, outbox, self.checkpoints, self.leaving)
        self.relaying = Relaying(state)
        self.inbox = Inbox(
            state, self.anti_entropy, self.checkpoints, self.quarantine, self.stealing, self.relaying, outbox
        )
        self.outcomes = Outcomes(
            state,
            calls,
            outbox,
            self.advance,
            self.beginning,
            self.checkpoints,
            self.quarantine,
            self.alarm,
        )

    @property
    def id(self) -> RunId:
        return self.state.id

    @property
    def status(self) -> RunPut:
        return self.state.status

    @property
    def schedule(self) -> Schedule:
        """Which of its versions are of which step of the pipeline."""
        return self.state.pipeline.schedule

    @property
    def is_active(self) -> bool:
        return self.state.is_active

    @property
    def has_ended(self) -> bool:
        """Whether it does not go on by itself: one that gave way to another run does."""
        return runs.has_ended(self.status)

    def heartbeat(self, now: float, mesh: MeshView) -> Heartbeat:
        """Where this node stands in the run: rides on frames."""
        state, own = self.state, self.state.versions.own
        head, holder = state.versions.best(now, mesh.living) or (None, None)
        mine = own.head if own else None
        backlog, pinned = self.stealing.backlog(), state.catch_up.pinned
        versions = state.versions
        said = state.ability.withdrawn, pinned, versions.everywhere.get(state.me, 0), versions.entered.get(state.me, 0)
        return Heartbeat(state.id, mine, head, holder, backlog, *said, state.status.attempt)

    def summary(self) -> dict[str, Any]:
        """What people are told of the run."""
        return summary(self.state, self.calls, self.checkpoints, self.alarm)

    @property
    def progress(self) -> tuple[object, ...]:
        """What changes whenever something of the run came about, here or as others say, that was not there before."""
        best = self.state.versions.newest_step
        return (*self.alarm.marks, self.state.holdings.fresh_at, best)

    def is_others_work(self, now: float, mesh: MeshView) -> bool:
        """Whether another member works on the open step, as far as this node can tell: only its replicas can."""
        state, position = self.state, self.state.position
        if position is None or state.step(position.step).roster is None:
            return False
        view = state.view(now, mesh, position)
        return state.me not in view.replicas or bool((view.at_work & mesh.living) - {state.me})

    # What happens ---------------------------------------------------------------------------------------------------

    def take(self, now: float, mesh: MeshView, source: NodeId, message: Any) -> list[Action]:
        """A member's message about this run. One that has ended only notes who has which checkpoint."""
        out: list[Action] = []
        if self.is_active:
            self.state.lapse(now, mesh)
            if self.inbox.take(now, mesh, source, message, out):
                self.state.revision.bump()
        elif isinstance(message, CheckpointPut):
            self.checkpoints.take(source, message)
            self.checkpoints.retire(mesh, out)
        return out

    def observe(self, source: NodeId, heartbeat: Heartbeat, living: Collection[NodeId]) -> bool:
        """Where a member says that it stands. False if what it says of a third one cannot be judged yet, so that it has
        to be said again."""
        moved = self.state.versions.observe(source, heartbeat)
        moved |= self.stealing.observe(source, heartbeat)
        moved |= self.state.ability.learn(source, heartbeat.withdrawn)
        if moved:
            self.state.revision.bump()
        return self.state.versions.learn_head(heartbeat.holder, heartbeat.best, living)

    def finished(self, now: float, mesh: MeshView, call: int, done: Done) -> list[Action]:
        """A work gave shards. What a call made that was given up meanwhile is freed: nobody else knows of it."""
        out: list[Action] = []
        self.state.lapse(now, mesh)
        self.state.revision.bump()
        if call in self.state.calls:
            self.outcomes.finished(now, mesh, call, done, out)
            return out
        made = {ref.id for each in done.made for _, ref in each.outputs}
        spare = made - self.state.holdings.all_here()
        return [Drop(self.id, tuple(sorted(spare)))] if spare else []

    def broke(self, now: float, mesh: MeshView, call: int, failed: Failed) -> list[Action]:
        """A work gave nothing."""
        out: list[Action] = []
        self.state.lapse(now, mesh)
        self.state.revision.bump()
        self.outcomes.broke(now, mesh, call, failed, out)
        return out

    def fetch_moved(self, now: float, suspicion_s: float, event: Fetched | FetchFailed | FetchAdvanced) -> list[Action]:
        """A fetch went on, or ended."""
        holdings, out = self.state.holdings, list[Action]()
        match event:
            case Fetched(_, shard, first, end):
                holdings.fetched(now, shard, (first, end))
                if not self.state.is_more_coming(shard):  # whatever happens to the last of them moves it
                    self.state.revision.bump()
            case FetchFailed(_, shard, first, end, missing, silent):
                self.state.revision.bump()
                if not missing and not silent:
                    self.state.found_no_room(now)
                holdings.failed(now, shard, (first, end), missing, out, silent, suspicion_s)
                self.state.revision.bump_at(now + RETRY_S)
            case FetchAdvanced(_, shard):
                holdings.advanced(now, shard)
        return out

    def shed(self, now: float, shard: ShardId) -> None:
        """The store gave a shard up for want of space."""
        self.state.revision.bump()
        self.state.holdings.shed(now, shard)

    def room_made(self) -> None:
        """There is space again."""
        self.state.revision.bump()
        self.calls.room_made()

    def seek(self, now: float, mesh: MeshView, is_idle: bool, out: list[Action]) -> None:
        """This node has a slot that is idle, or seats for partitions in those that work: look for work elsewhere."""
        with self._isolated(out):
            self.state.lapse(now, mesh)
            self.stealing.seek(now, mesh, is_idle, out)

    def go_on(self, now: float, mesh: MeshView, out: list[Action]) -> None:
        """A person says that those for whom a paused run waits will not come back."""
        self.state.revision.bump()
        self.rosters.go_on(now, mesh, out)

    def leave(self, now: float, mesh: MeshView, drained: frozenset[NodeId]) -> list[Action]:
        """Start nothing more, give up what runs, and ask another member to keep what only this one has. `drained`: who
        was until now."""
        self.state.lapse(now, mesh)
        self.state.revision.bump()
        return self.leaving.begin(now, mesh, drained)

    def stand_aside(self, now: float, mesh: MeshView) -> list[Action]:
        """No slot of this node works any more: others take what it ran."""
        self.state.lapse(now, mesh)
        return self.leaving.stand_aside(now, mesh)

    def files_found(self, now: float, mesh: MeshView, event: FilesFound) -> list[Action]:
        """How the run's files stand on this host."""
        out: list[Action] = []
        self.state.lapse(now, mesh)
        self.files.found(now, mesh, event.lacking, event.refused, out)
        return out

    def forget(self, node: NodeId) -> None:
        """`node` is dead, has left, or lives a new life: what it held and claimed is gone."""
        self.state.forget(node)
        self.stealing.forget(node)
        self.checkpoints.forget(node)

    def inherit(self, failed: Run, out: list[Action]) -> None:
        """Take over what this node still has in memory of the attempt before: its versions, and one being saved."""
        state, before = self.state, failed.state
        failed.calls.stop_all(out, but_saves=True)
        state.inherit_calls(before.calls)
        saving = {ref.id: ref for call in state.calls.values() for ref, _, _ in inputs_of(call.work)}
        held = {ref.id: ref for header in before.versions.held.values() for _, ref in header.state}
        kept = {**saving, **held}
        before.holdings.drop([shard for shard in before.holdings.all_here() if shard not in kept], out)
        for ref in kept.values():
            state.holdings.keep(ref, is_state=True)
        state.versions.inherit(before.versions)

    # Reconcile ------------------------------------------------------------------------------------------------------

    def refresh(self, now: float, mesh: MeshView, at_once: bool = False) -> list[Action]:
        """Say again what others may not have heard, if it is time for that."""
        out: list[Action] = []
        with self._isolated(out):
            self.state.lapse(now, mesh)
            if self.anti_entropy.refresh(now, mesh, at_once, out):
                self.state.revision.bump()
        return out

    def reconcile(self, now: float, mesh: MeshView, free: FreeSlots) -> list[Action]:
        """Derive what is due and emit what is not yet under way, as far as slots are free."""
        out: list[Action] = []
        with self._isolated(out):
            self.state.lapse(now, mesh)
            self._reconcile(now, mesh, free, out)
            if self.is_active:
                self.alarm.reconcile(now, mesh, free, out)
        self.state.holdings.end_turn()
        return out

    @contextmanager
    def _isolated(self, out: list[Action]) -> Iterator[None]:
        """A fault of this program that shows in one run is told, once as long as it is the same, since it may show in
        each turn; and it costs no other run what was due in the turn. What this one emitted before it is performed, as
        its books say so."""
        try:
            yield
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            before, self._fault = self._fault, f"{type(error).__name__}: {error}"[:MAX_ERROR]
            if self._fault != before:
                fields = {"run": self.id, "error": self._fault, "at": f"{at.filename.rpartition('/')[2]}:{at.lineno}"}
                out.append(Report("run.broken", fields, "error"))

    def _reconcile(self, now: float, mesh: MeshView, free: FreeSlots, out: list[Action]) -> None:
        state = self.state
        state.holdings.trust_again(now)
        state.holdings.reroute(mesh.routes)
        out += state.ability.try_again(now)
        if state.ability.stand_aside(mesh.unable):
            self.outbox.tell_all(mesh, None, out)  # others take this node's share at once, or give it some again
        if self.is_active:
            self.quarantine.judge(now, mesh, out)
        if not self.is_active:
            self.ending.wind_up(now, mesh, out)
            return
        self.files.reconcile(now, mesh, out)
        self.relaying.reconcile(now, mesh, out)
        if state.me not in mesh.on_duty:
            self._stand_by(now, mesh, free, out)
            return
        if state.position is None:
            self.alarm.begins(mesh, out)
        if state.versions.own is None and self.beginning.reconcile(now, mesh, free, out):
            return
        self._catch_up(now, mesh, out)
        duties: list[Duty] = []
        header = None
        while state.position is not header:  # a step without an update hands its state on at once
            header = state.position
            assert header is not None
            self.calls.stop_stale(header, out)
            self.ending.commit(now, mesh)  # or the next one would wait for a turn of its own
            duties = self._work_from(now, mesh, header, out)
        if header is None:
            return
        duties += self._ahead(now, mesh, header, out)
        if state.versions.own is not None:
            duties += self.ending.reconcile(now, mesh, out)
        if state.is_leaving:
            self.leaving.reconcile(now, mesh, out)
        elif self.is_active:
            self._start(now, mesh, duties, free, out)

    def _stand_by(self, now: float, mesh: MeshView, free: FreeSlots, out: list[Action]) -> None:
        """This node is drained. A checkpoint that nobody has a better one of is loaded all the same, for those on duty
        to copy: what only this node has is handed over."""
        state = self.state
        state.gather(now, ())
        if state.versions.own is None and mesh.on_duty and self.checkpoints.mine:
            self.beginning.reconcile(now, mesh, free, out)
        self.draining.reconcile(now, mesh, out)
        if state.is_leaving:
            self.leaving.reconcile(now, mesh, out)
        else:
            self.alarm.stand_by(mesh, out)

    def _catch_up(self, now: float, mesh: MeshView, out: list[Action]) -> None:
        """Copy a better version than the own one, if there is one."""
        state, before = self.state, self.state.versions.own
        state.holdings.work_on(state.position.step if state.position is not None else 0)
        is_left = before is not None and state.own_updates.are_left(before.step + 1)
        lost = state.catch_up.reconcile(now, mesh.living, mesh.suspicion_s, self._is_applying(), out, is_left)
        if state.versions.own is not before:
            self.advance.moved(now, mesh, before, {}, out, lost=lost)
        if state.catch_up.target is not None:
            state.pass_over(state.catch_up.target)

    def _is_applying(self) -> bool:
        """Whether the own next version is being made, and not by a further try: a host that fails at it each time would
        wait for itself for ever."""
        failed = self.state.failures.own_attempts
        applies = (call.unit for call in self.state.calls.values() if isinstance(call.work, ApplyWork))
        return any(unit not in failed for unit in applies)

    def _work_from(self, now: float, mesh: MeshView, header: Header, out: list[Action]) -> list[Duty]:
        """Seal what can be sealed at this position and apply what is sealed, else the step's duties."""
        state, view = self.state, self.state.view(now, mesh, header)
        self.rosters.check_split(view, out)
        if state.is_paused or not self.rosters.ensure(view, mesh, out):
            return []
        view.step.open(now)
        self.carrying.reconcile(view)
        batch: Batch | None = None
        previous: str | None = header.id
        open_chains: list[Chain] = []
        manifest: Seal | None = None
        if sealed_chains(view, MANIFEST):
            manifest = self.sealer.settle(view, mesh, MANIFEST, header.id, out)
            if manifest is not None:
                self.quarantine.tell_skipped(manifest, out)
            batch = self.sealer.batch(view, manifest)
            if batch is not None:
                self.sealer.tell_blocks(view, batch, out)
            previous = manifest.id if manifest else None
        update = self.sealer.settle(view, mesh, UPDATE, previous, out)
        duties: list[Duty] = []
        is_followed = update is not None and self.advance.is_followed(update, header)
        is_done = update is not None and is_followed and all(view.counts(record) for record in update.entries)
        if not is_done and is_read(view, manifest, batch):
            open_chains += self.carrying.due(view, sealed_chains(view, MANIFEST), manifest)
        open_chains += sealed_chains(view, UPDATE)
        chains = () if is_done else tuple(open_chains)
        self.alarm.needs(view, chains, out)
        self.stealing.enter(Open(header.step, header.id, chains, None if is_done else batch))
        if update is not None and state.catch_up.target is None and header.step < state.last_step:
            duties = self.advance.apply(view, mesh, update, out)
        if is_done:
            return duties
        due = self._due(view, open_chains, batch)
        watch_homes(view, due, are_many=not is_few(mesh))
        if batch is not None:
            self.advance.prefetch(view, batch, out)
        self.sealer.back_up(view, out)
        return duties + due.here

    def _ahead(self, now: float, mesh: MeshView, header: Header, out: list[Action]) -> list[Duty]:
        """Rollouts of later steps that are sampled from what there is, and second copies of what came out. They are
        sealed when their step's turn comes."""
        duties: list[Duty] = []
        if self.state.is_paused:
            return duties
        for view in self.state.views(now, mesh, header)[1:]:
            duties += self._due(view, sealed_chains(view, MANIFEST), None).here
            self.sealer.back_up(view, out)
        return duties

    def _due(self, view: StepView, chains: Sequence[Chain], batch: Batch | None) -> Due:
        """What is due of an open step, kept from one reconcile to the next."""
        number, first = view.step.number, view.trains.step
        if number not in self._duties:
            self._duties = {step: kept for step, kept in self._duties.items() if step >= first}
            self._duties[number] = OpenDuties()
        return self._duties[number].due(view, chains, batch)

    def _start(self, now: float, mesh: MeshView, duties: list[Duty], free: FreeSlots, out: list[Action]) -> None:
        """Begin what is due, and claim what this node has in hand."""
        state, header = self.state, self.state.position
        assert header is not None
        ordered = in_order(duties)
        has_started = self.calls.start(now, mesh, ordered, free, out)
        views = state.views(now, mesh, header)
        self.stealing.settle(ordered)
        if has_started or self.stealing.must_claim or any(self._must_claim(view) for view in views):
            self.stealing.claimed()
            self.outbox.put_all_claims(views, out)

    def _must_claim(self, view: StepView) -> bool:
        """Whether what this node claims of a step is over, or it waits for something that it does not claim."""
        in_hand, claimed = set(self.state.taken_on(view)), view.step.claimed_by(view.now, self.state.me)
        return bool((not view.running and claimed - in_hand) or self.state.gathering.keys() & in_hand - claimed)

    def check(self) -> None:
        """Assert what must hold after every event."""
        assert not self._fault, self._fault
        state, own = self.state, self.state.versions.own
        if own is not None and self.is_active:
            missing = [name for name, ref in own.state if ref.id not in state.holdings.local]
            assert not missing, f"{own.id} is claimed, but {missing} of it is not here"
        for call in state.calls.values():
            assert call.parent is None or call.parent in state.versions.headers
        assert len(state.versions.held) <= 2 + UNCOMMITTED + 1 + PINNED + BEGUN
        assert not (state.is_cleared and state.calls)
