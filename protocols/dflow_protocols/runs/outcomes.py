"""What a run has in the slots of its node: what is started, given up, done, and what came to nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING

from ..claiming.failure import Failures
from ..events import Action, Report, Start, Stop
from ..names import ShardId, TaskKey, VersionId
from ..ranges import in_order
from ..steps.duties import CHAIN, Duty, due_first
from ..steps.origin import origin_of
from ..wire.steps import Failure, FailurePut, Header, Record
from ..work import ApplyWork, BlockWork, ChainWork, Done, Failed, InitWork, LoadWork, Origin, SaveWork, SumWork, Work

if TYPE_CHECKING:
    from .run import Run, Surroundings

QUEUED = 1  # partitions that wait behind what runs in each slot, so that it need not wait for this loop; none where
# runs share the slots, or one in the midst of its rollouts would never let another's blocks in
PREFETCH = 2  # duties beyond those that run, whose inputs are brought in meanwhile, and one more for each further slot
RETRY_AFTER = 0.5  # suspicion times before a unit that failed here is tried again
DIVERGED = "is not finite: the training diverged"


@dataclass(frozen=True, slots=True)
class Call:
    """A work in a slot."""

    unit: TaskKey
    work: Work
    reads: tuple[str, ...]
    parent: VersionId | None
    started: float
    rank: int
    reached: int  # of a block: the leaf that it is at
    waits: bool = False  # whether it was put behind what ran in the slots, and none has taken it yet


class Slot:
    """One run's calls at one node; the table itself is `run.calls`. `numbers`: one sequence for all runs of a node."""

    def __init__(self, run: Run, numbers: Iterator[int]) -> None:
        self.run = run
        self._numbers = numbers
        self._starved: set[TaskKey] = set()  # units in the run's `retry_at` that found no room
        self._behind: set[int] = set()  # calls that were started while no slot was free

    @property
    def is_starved(self) -> bool:
        """Whether something that is due here waits for room in this node's store."""
        step = self.run.position.step if self.run.position is not None else 0
        return any(unit.step == step for unit in self._starved)

    def stop_stale(self, header: Header, out: list[Action]) -> None:
        """Give up calls that work from another version than this node does now."""
        for call, running in list(self.run.calls.items()):
            if running.parent is not None and running.parent != header.id and not isinstance(running.work, SaveWork):
                del self.run.calls[call]
                out.append(Stop(call))

    def start(self, now: float, around: Surroundings, duties: list[Duty], slots: int, out: list[Action]) -> None:
        """Give free slots what is due first and has its inputs here; bring the inputs of what comes after."""
        header, holdings = self.run.position, self.run.holdings
        assert header is not None
        of_version = {ref for _, ref in header.state}
        version_holders = self.run.versions.holders(header.id, around.living)
        own_slots = around.slots.get(self.run.me, 1)
        ahead = PREFETCH + own_slots - 1
        doubted = self.run.failures.doubted(self.run.me)  # their second try comes first, and before it nothing alike
        doubtful = {unit.stage for unit in doubted if self.run.retry_at.get(unit, now) > now}
        due = due_first(duties, {call.unit for call in self.run.calls.values()})
        for duty in sorted(due, key=lambda duty: duty.unit not in doubted):
            if self.run.retry_at.get(duty.unit, now) > now or duty.unit.stage in doubtful:
                continue
            here = [
                holdings.want(now, ref, around.living, out, chunks, version_holders, is_state=True)
                if ref in of_version
                else holdings.want(now, ref, around.living, out, chunks)
                for ref, chunks in duty.needs
            ]
            room = slots + QUEUED * own_slots if duty.rank == CHAIN and not around.is_shared else slots
            if room > 0 and all(here):
                self.begin(now, duty, header, out, waits=slots <= 0)
                if slots <= 0:
                    self._behind.add(max(self.run.calls))
                slots -= 1
            elif all(here) or any(holdings.is_coming(ref, chunks) for ref, chunks in duty.needs):
                ahead -= 1  # one that nobody can bring must not keep the others from being tried
            if ahead <= 0:
                break
        desk = self.run.desk(now, around, header)
        self.run.stealing.settle(duties)
        has_started = any(isinstance(action, Start) for action in out)
        is_over = desk.is_idle and desk.step.claimed_by(now, self.run.me) - set(self.run.stealing.held())
        if has_started or self.run.stealing.must_claim or is_over:
            self.run.stealing.must_claim = False
            self.run.postbox.put_claims(desk, out)

    def begin(self, now: float, duty: Duty, header: Header | None, out: list[Action], *, waits: bool = False) -> None:
        call = next(self._numbers)
        self.run.stealing.moved_at = now if not self.run.calls else self.run.stealing.moved_at
        parent = header.id if header is not None else None
        at = duty.unit.leaves[0] if duty.unit.leaves else 0
        self.run.calls[call] = Call(duty.unit, duty.work, duty.reads, parent, now, duty.rank, at, waits)
        self.run.last_started = now
        self._starved.discard(duty.unit)
        fresh = any(task.holds(duty.unit) or duty.unit.holds(task) for task, _, _ in self.run.failures.known)
        out.append(Start(call, self.run.id, duty.unit, duty.work, fresh, self._origin(duty)))

    def _origin(self, duty: Duty) -> Origin:
        step, borrowed = self.run.steps.get(duty.unit.step), self.run.stealing.has_borrowed(duty.unit)
        if step is None or step.roster is None:
            return Origin.DEALT
        plan = self.run.plan(duty.unit.step)
        return origin_of(self.run.id, self.run.me, duty, plan, step.roster, borrowed)

    def began(self, call: int) -> None:
        """A slot took it."""
        if call in self.run.calls:
            self.run.calls[call] = replace(self.run.calls[call], waits=False)

    def reached(self, now: float, call: int, leaf: int) -> None:
        """A block's call is at this leaf."""
        self.run.stealing.moved_at = now
        running = self.run.calls.get(call)
        if running is not None:
            self.run.calls[call] = replace(running, reached=leaf)

    def finished(self, now: float, around: Surroundings, call: int, done: Done) -> list[Action]:
        """A work of this run gave shards: note what they are, and tell who needs to know."""
        out: list[Action] = []
        running = self.run.calls.pop(call, None)
        if running is None:
            return out
        self.run.alarm.done(running.unit, out)
        is_state = isinstance(running.work, InitWork | ApplyWork | LoadWork)
        for ref in (ref for made in done.made for _, ref in made.outputs):  # also what nobody will want: to be freed
            self.run.holdings.keep(ref, is_state)
        broken = [(made.stage, name) for made in done.made for name, value in made.metrics if not isfinite(value)]
        if broken:
            self.run.calls[call] = running
            stage, names = broken[0][0], ", ".join(name for stage, name in broken if stage == broken[0][0])
            what = "is not a finite number" if isinstance(running.work, ChainWork) else DIVERGED
            return self.broke(now, around, call, Failed("user", f"{names} of `{stage}` {what}"))
        match running.work:
            case InitWork():
                state = in_order(entry for made in done.made for entry in made.outputs)
                self.run.versions.hold(Header(None, 0, 0, self.run.spec, state))
                self.run.advance.moved(now, around, None, {}, out)
            case SaveWork(header=header):
                self.run.checkpoints.saved(around, header, done.detail, out)
            case LoadWork(header=header):
                self.run.beginning.loaded(now, around, header, done, out)
            case ApplyWork():
                self.run.advance.applied(now, around, running, done, out)
            case _:
                self._record(now, around, running, done, out)
        return out

    def _record(self, now: float, around: Surroundings, running: Call, done: Done, out: list[Action]) -> None:
        """One record a stage; each reads what its work read and all that the stages before it made."""
        work, part, reads = running.work, running.unit.part, running.reads
        if isinstance(work, BlockWork):  # which is trimmed too late if the engine is past it
            part = f"b{work.first}-{work.end}"
        records = []
        for made in done.made:
            task = TaskKey(running.unit.step, made.stage, made.part or part)
            records.append(Record(task, reads, made.outputs, made.groups, tuple(sorted(made.metrics))))
            if isinstance(work, ChainWork):
                reads += tuple(ref.id for _, ref in made.outputs)
        if isinstance(work, BlockWork | ChainWork):
            self.run.stealing.took(now, running.unit, done)
        out += self.run.ability.succeeded(running.unit)
        position = self.run.position
        if position is None or position.id != running.parent:
            return
        desk = self.run.desk(now, around, position)
        if isinstance(work, BlockWork | SumWork):  # the look that follows says which of them others hear of
            desk.step.kept_back.update({record.task: record for record in records})
            return
        for record in records:
            desk.step.add(record, own=True)
        self.run.postbox.put_records(desk, records, out, self.run.stealing.loans.owners([running.unit]))

    def broke(self, now: float, around: Surroundings, call: int, failed: Failed) -> list[Action]:
        """A work of this run gave nothing."""
        out: list[Action] = []
        running = self.run.calls.pop(call, None)
        if running is None:
            return out
        self.run.retry_at[running.unit] = now + RETRY_AFTER * around.suspicion_s
        if failed.kind == "lost":
            self._lose(now, ShardId(failed.blame))
            return out
        fields = {"run": self.run.id, "task": str(running.unit), "kind": failed.kind, "error": failed.error}
        out.append(Report("task.failed", fields, "warning"))
        if failed.kind == "full" or isinstance(running.work, SaveWork):
            self.run.retry_at[running.unit] = now + 4 * around.suspicion_s
            if failed.kind == "full":
                self._starved = {*self._starved & self.run.retry_at.keys(), running.unit}
            return out
        if isinstance(running.work, LoadWork):
            failure = self.run.beginning.load_failed(now, around, running.work.header, failed, out)
            if failure is not None:
                self._tell_failure(now, around, failure, out)
            return out
        error = f"stage `{failed.blame}`: {failed.error}" if failed.blame else failed.error
        self.run.stealing.give_up(running.unit)
        reports = self.run.ability.failed(now, around.suspicion_s, running.unit, error, failed.kind == "host")
        if reports:  # others take this node's share at once
            self.run.postbox.tell_all(around, None, out)
        out += reports
        if failed.kind == "user":
            self._doubt(running.unit, out)
        failure = self.run.failures.record(running.unit, self.run.me, failed.kind, error)
        self._tell_failure(now, around, failure, out)
        return out

    def _doubt(self, unit: TaskKey, out: list[Action]) -> None:
        """The user's code is at fault, or this unit: its second try tells, before anything else of the stage begins.
        A function that never returns costs the time of two tries, however many units wait for it."""
        self._behind &= self.run.calls.keys()
        for call in sorted(self._behind):
            if self.run.calls[call].unit.stage == unit.stage:
                del self.run.calls[call]
                out.append(Stop(call))

    def _tell_failure(self, now: float, around: Surroundings, failure: Failure, out: list[Action]) -> None:
        if failure.attempt <= Failures.ANY_ERROR:  # more would say nothing new
            self.run.postbox.tell_all(around, FailurePut(self.run.id, (failure,)), out)
        position = self.run.position
        if position is not None:
            self.run.postbox.put_claims(self.run.desk(now, around, position), out)  # another node may try at once
        self.run.quarantine.judge(now, around, out)

    def room_made(self) -> None:
        """There is space again: what found none is tried at once."""
        for unit in self._starved:
            self.run.retry_at.pop(unit, None)
        self._starved.clear()

    def _lose(self, now: float, shard: ShardId) -> None:
        """The store has not what it should: claim no version any more that needs it."""
        self.run.holdings.lose(shard)
        held = self.run.versions.held.values()
        self.run.versions.held = {h.id: h for h in held if all(ref.id != shard for _, ref in h.state)}
        self.run.advanced_at = now
        self.run.follower.behind_since = None
