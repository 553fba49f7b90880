"""Calls: what a run has in the slots of its node, what is started there, and what is given up."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..events import Action, Start, Stop, Trim
from ..names import Block, NodeId, ShardRef, TaskKey
from ..steps.duty import AHEAD, AHEAD_REST, CHAIN, SLICE, Duty
from ..wire.steps import Header
from ..work import BlockWork, ChainWork, Done, Origin, Product, SaveWork, Work, at_once, is_host_work, read_by
from .origin import origin_of
from .run_state import Call, MeshView, RunState

QUEUED = 1  # partitions that wait behind what runs in each slot, so that it need not wait for this loop; none where
# runs share the slots, or one in the midst of its rollouts would never let another's blocks in
QUEUED_S = 0.04  # of work that waits there at most, where partitions are short: a turn then begins several
MOST_QUEUED = 16
PREFETCH = 2  # duties beyond those that run, whose inputs are brought in meanwhile, and one more for each further slot


@dataclass(slots=True)
class FreeSlots:
    """How many more works this node's slots take now. `host`: those of shards alone; None: they take the others'.
    `seats`: places for partitions of one run, beside those of it that slots work on."""

    device: int
    host: int | None = None
    seats: int = 0

    @classmethod
    def beside(
        cls, device: int, host: int, own: Collection[Work], others: Iterable[Collection[Work]] = (), seats: bool = True
    ) -> FreeSlots:
        """Of so many slots of each kind, beside what runs of one run and of each of the others, as that run finds them;
        no slots of the host's own: one kind for all. `seats`: whether it may add partitions to slots that work.

        Partitions of a run that share slots are spread over them. So a few of them hold many slots, and more of them
        find seats there.
        """
        runs = [*others, own]
        works = [work for run in runs for work in run]
        of_host = sum(map(is_host_work, works)) if host else 0
        single = sum(at_once(work) == 1 for work in works) - of_host
        free, shared = device - single, 0
        for run in runs:
            together = [at_once(work) for work in run if at_once(work) > 1]
            shared = min(len(together), max(0, free))
            free -= shared
        mine = [at_once(work) for work in own if at_once(work) > 1]
        left = shared * min(mine, default=0) - len(mine)
        return cls(free, host - of_host if host else None, left if seats else min(0, left))

    def of(self, work: Work) -> int:
        if self.host is not None and is_host_work(work):
            return self.host
        if at_once(work) == 1:
            return self.device
        return self.seats + max(0, self.device) * at_once(work)

    def take(self, work: Work) -> None:
        """One less."""
        if self.host is not None and is_host_work(work):
            self.host -= 1
        elif at_once(work) == 1:
            self.device -= 1
        elif self.seats > 0 or self.device <= 0:
            self.seats -= 1
        else:
            self.device -= 1
            self.seats += at_once(work) - 1

    def keep_for(self, work: Work) -> None:
        """It is due and waits for a slot of its own: no partition joins those that hold it up."""
        if at_once(work) == 1 and not (self.host is not None and is_host_work(work)):
            self.seats = min(0, self.seats)


class Calls:
    """One run's at one node; the table itself is the state's. `numbers`: one sequence for all runs of a node."""

    def __init__(self, state: RunState, numbers: Iterator[int]) -> None:
        self._state = state
        self._numbers = numbers
        self._starved: set[TaskKey] = set()  # units that wait to be tried again and found no room
        self._behind: set[int] = set()  # calls that were started while no slot was free
        self.pace: dict[str, float] = {}  # by stage, seconds of a slot that one partition or leaf took here lately
        self.moved_at = 0.0  # when a slot last began a partition or a leaf

    @property
    def is_starved(self) -> bool:
        """Whether something that is due here waits for room in this node's store."""
        position = self._state.position
        step = position.step if position is not None else 0
        return any(unit.step == step for unit in self._starved)

    @property
    def has_waiting(self) -> bool:
        """Whether something waits behind what runs in the slots."""
        return any(call.waits for call in self._state.calls.values())

    # Starting -------------------------------------------------------------------------------------------------------

    def start(self, now: float, mesh: MeshView, duties: Sequence[Duty], free: FreeSlots, out: list[Action]) -> bool:
        """Give free slots what is due first and has its inputs here; bring the inputs of what comes after. True if
        something began. `duties`: in their order."""
        state, header, holdings = self._state, self._state.position, self._state.holdings
        assert header is not None
        holders = self._version_holders(header, mesh) if duties else {}
        own_slots = mesh.slots.get(state.me, 1)
        ahead = PREFETCH + own_slots - 1
        doubted = state.failures.doubted(state.me)  # their second try comes first, and before it nothing alike
        doubtful = {unit.stage for unit in doubted if state.retry_at.get(unit, now) > now}
        running = {call.unit for call in state.calls.values()}
        if doubted:
            duties = sorted(duties, key=lambda duty: duty.unit not in doubted)
        has_started, gathering = False, list[TaskKey]()
        for each in duties:
            if each.unit in running:
                continue
            duty = self._set_apart(each)
            if not self.may_begin(duty.work):
                continue
            if state.retry_at.get(duty.unit, now) > now or duty.unit.stage in doubtful:
                continue
            here = [
                holdings.want(now, ref, mesh.living, out, chunks, holders[ref], product=Product.STATE)
                if ref in holders
                else holdings.want(now, ref, mesh.living, out, chunks, product=read_by(duty.work), step=duty.unit.step)
                for ref, chunks in duty.needs
            ]
            slots = free.of(duty.work)
            may_wait = duty.rank == CHAIN and not mesh.is_shared and not mesh.unable
            room = slots + self._queued(duty.unit.stage) * own_slots if may_wait else slots
            if room > 0 and all(here):
                call = self.begin(now, duty, header, out, waits=slots <= 0)
                has_started = True
                if slots <= 0:
                    self._behind.add(call)
                free.take(duty.work)
            elif all(here) or any(holdings.is_coming(ref, chunks) for ref, chunks in duty.needs):
                ahead -= 1  # one that nobody can bring must not keep the others from being tried
                if duty.rank == SLICE and not all(here):
                    gathering.append(duty.unit)
            if slots <= 0 and all(here):
                free.keep_for(duty.work)
            if ahead <= 0:
                break
        state.gather(now, gathering)
        return has_started

    def _version_holders(self, header: Header, mesh: MeshView) -> dict[ShardRef, tuple[NodeId, ...]]:
        """By shard of the versions that works read, who has that version."""
        versions, began = self._state.versions, self._state.began(header)
        found = dict.fromkeys((ref for _, ref in header.state), versions.holders(header.id, mesh.living))
        if began is not None and began is not header:
            of_began = dict.fromkeys((ref for _, ref in began.state), versions.passers(began, mesh.living))
            found = {**of_began, **found}
        return found

    def _queued(self, stage: str) -> int:
        """How many of its partitions wait behind what runs in a slot."""
        short = QUEUED_S / MOST_QUEUED
        return max(QUEUED, int(QUEUED_S / max(self.pace.get(stage, QUEUED_S), short)))

    def may_begin(self, work: Work) -> bool:
        """Whether the run's files lie here, where the work opens some, and the code of its stages is run here: of a
        chain that of all stages that are still to be done, as nobody would go on where this node stops."""
        ability = self._state.ability
        return ability.may_run_all or is_host_work(work) or ability.may_run(self._stages(work))

    def _stages(self, work: Work) -> tuple[str, ...]:
        if isinstance(work, ChainWork):
            first = work.stages[0]
            chain = next(chain for chain in self._state.plan(work.step).chains if first in chain.stages)
            return chain.stages[chain.stages.index(first) :]
        return (work.stage,) if isinstance(work, BlockWork) else ()

    def begin(self, now: float, duty: Duty, header: Header | None, out: list[Action], *, waits: bool = False) -> int:
        """Give a slot this duty, whatever else is due; `waits`: behind what runs there. The call's number."""
        state, number = self._state, next(self._numbers)
        if not state.calls:
            self.moved_at = now
        parent = header.id if header is not None else None
        at = duty.unit.leaves[0] if duty.unit.leaves else 0
        state.started(now, number, Call(duty.unit, duty.work, duty.reads, parent, now, duty.rank, at, waits))
        self._starved.discard(duty.unit)
        fresh = self._has_failed(duty.unit)
        source = self._samples_from(duty.work)
        out.append(Start(number, state.id, duty.unit, duty.work, fresh, self._origin(duty), source))
        return number

    def _samples_from(self, work: Work) -> int | None:
        """The number of the version that the work's rollouts are of; None of one that samples none."""
        if not isinstance(work, ChainWork):
            return None
        operators = [self._state.pipeline.stage(stage).operator for stage in work.stages]
        if not any(operator.samples and not operator.evaluates for operator in operators):
            return None
        return self._state.plan(work.step).samples_from if work.version is None else work.version

    def _has_failed(self, unit: TaskKey) -> bool:
        return any(task.holds(unit) or unit.holds(task) for task, _, _ in self._state.failures.known)

    def _set_apart(self, duty: Duty) -> Duty:
        """A partition that failed has a slot for itself: it harms no other there, and shows that it was itself."""
        if at_once(duty.work) == 1 or not self._has_failed(duty.unit):
            return duty
        assert isinstance(duty.work, ChainWork)
        return replace(duty, work=replace(duty.work, at_once=1))

    def _origin(self, duty: Duty) -> Origin:
        state, borrowed = self._state, self._state.loans.has_borrowed(duty.unit)
        step = state.steps.get(duty.unit.step)
        if step is None or step.roster is None:
            return Origin.DEALT
        return origin_of(state.id, state.me, duty, state.plan(duty.unit.step), step.roster, borrowed)

    def began(self, number: int) -> None:
        """A slot took the call."""
        self._state.change_call(number, waits=False)

    def reached(self, now: float, number: int, leaf: int) -> None:
        """A block's call is at this leaf."""
        self.moved(now)
        self._state.change_call(number, reached=leaf)

    def took(self, now: float, unit: TaskKey, done: Done) -> None:
        """A unit was done here."""
        self.moved(now)
        seconds = sum(made.seconds for made in done.made) / max(1, len(unit.leaves))
        self.pace[unit.stage] = (self.pace.get(unit.stage, seconds) + seconds) / 2

    def moved(self, now: float) -> None:
        """A slot began, or ended, a partition or a leaf."""
        self.moved_at = now

    def take(self, number: int) -> Call | None:
        """The call has ended: it is no longer in the table. None if it was given up before."""
        return self._state.end_call(number)

    # Giving up ------------------------------------------------------------------------------------------------------

    def stop(self, number: int, out: list[Action]) -> None:
        self._state.end_call(number)
        out.append(Stop(number))

    def stop_stale(self, header: Header, out: list[Action]) -> None:
        """Give up calls that are for another version than this node works from now. Rollouts that were ahead may be of
        its own step now."""
        for number, call in list(self._state.calls.items()):
            if call.rank in (AHEAD, AHEAD_REST) and call.unit.step == header.step:
                self._state.change_call(number, rank=call.rank - AHEAD + CHAIN)
            if call.parent is None or isinstance(call.work, SaveWork):
                continue
            if not self._state.is_of(call, header):
                self.stop(number, out)

    def stop_all(self, out: list[Action], but_saves: bool = False) -> None:
        """Give up all, or all but checkpoints that are being written."""
        for number, call in list(self._state.calls.items()):
            if not (but_saves and isinstance(call.work, SaveWork)):
                self.stop(number, out)

    def stop_waiting(self, out: list[Action]) -> None:
        """Give up what no slot has begun."""
        for number, call in sorted(self._state.calls.items()):
            if call.waits:
                self.stop(number, out)

    def stop_on_devices(self, out: list[Action]) -> None:
        """Give up all that needs a device."""
        for number, call in list(self._state.calls.items()):
            if not isinstance(call.work, SaveWork) and not is_host_work(call.work):
                self.stop(number, out)

    def stop_barred(self, out: list[Action]) -> None:
        """Give up what waits in a slot's queue and may not start here any more."""
        for number, call in list(self._state.calls.items()):
            if call.waits and not self.may_begin(call.work):
                self.stop(number, out)

    def stop_queued(self, stages: Collection[str], out: list[Action]) -> None:
        """Give up what waits in a slot's queue of these stages."""
        self._behind &= self._state.calls.keys()
        for number in sorted(self._behind):
            if self._state.calls[number].unit.stage in stages:
                self.stop(number, out)

    def withdraw(self, chosen: Collection[TaskKey], out: list[Action]) -> bool:
        """Take single units that were given away out of the slots. True if something there was touched."""
        touched = False
        for number, call in list(self._state.calls.items()):
            given = [unit for unit in call.unit.singles if unit in chosen]
            if not given:
                continue
            touched = True
            if isinstance(call.work, BlockWork):
                first, end = call.unit.leaves[0], given[0].leaves[0]
                self._state.change_call(number, unit=replace(call.unit, part=Block(first, end)))
                out.append(Trim(number, end))
            else:
                self.stop(number, out)
        return touched

    # Room -----------------------------------------------------------------------------------------------------------

    def found_no_room(self, unit: TaskKey) -> None:
        """`unit` came to nothing for want of space; it is tried again as soon as there is some."""
        self._starved = {*self._starved & self._state.retry_at.keys(), unit}

    def room_made(self) -> None:
        """There is space again: what found none is tried at once."""
        for unit in self._starved:
            self._state.retry_at.pop(unit, None)
        self._starved.clear()
