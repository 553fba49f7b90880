"""The state of one run at one node: what is known of it, and nothing of what is to be done about it.

Rooms below own its parts (versions, holdings, steps, loans ...); what belongs to none of them is a scalar here. It is
changed by its verbs only, so that who wants to know when a scalar changes finds one place.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from ..claiming.ability import Ability, Offers
from ..claiming.failure import Failures
from ..claiming.loans import Loans
from ..events import Persist, Report
from ..membership.timing import answer_s
from ..names import MANIFEST, NodeId, Partition, RunId, ShardId, ShardRef, SpecId, TaskKey, VersionId
from ..pipeline.plan import StepPlan
from ..pipeline.plan import plan as make_plan
from ..pipeline.spec import Pipeline
from ..shards.holdings import Holdings
from ..steps.progress import Progress
from ..steps.sealing import sealed_chains_of
from ..steps.step import Step
from ..steps.view import StepView
from ..versions.catch_up import FOLLOWED_STEPS, CatchUp
from ..versions.lagged import Source, sampled
from ..versions.own_updates import OwnUpdates
from ..versions.versions import Versions
from ..wire.steps import Header, RunPut, Skip
from ..work import ChainWork, Work
from . import status as runs

PLANS_KEPT = 8  # plans that are remembered, beside those of the steps that are open: the last that were made
STEPS_AHEAD = 2  # books of later steps that a node opens on hearsay: peers are at most that far ahead of what it knows
MAX_KEPT = 4_096  # shards that a node keeps for members that left


@dataclass(frozen=True, slots=True)
class MeshView:
    """What a node tells its runs at every reconcile."""

    living: frozenset[NodeId]
    stable: frozenset[NodeId]
    suspicion_s: float
    incarnation: int
    is_gathered: bool  # whether the members of this node's last life are back, or were waited for
    offers: Offers = field(default_factory=dict)  # what each member has that a stage may require
    is_shared: bool = False  # whether several runs want this node's slots
    slots: Mapping[NodeId, int] = field(default_factory=dict)  # how many works each member runs at once, if not one
    unable: str = ""  # why none of this node's slots takes work, if so
    drained: frozenset[NodeId] = frozenset()  # of the living, those that take no new work
    routes: Mapping[NodeId, NodeId] = field(default_factory=dict)  # members without a link to this one -> next hop
    is_rejoining: bool = False  # whether this node slept for long, and nobody has told it yet what happened meanwhile
    is_cut_off: bool = False  # whether all others say that they cannot dial it, so that its work counts for nobody

    @property
    def on_duty(self) -> frozenset[NodeId]:
        """The living that take new work."""
        return self.living - self.drained if self.drained else self.living

    @property
    def answer_s(self) -> float:
        """For how long an answer is waited for, or what may have been lost."""
        return answer_s(self.suspicion_s)


@dataclass(frozen=True, slots=True)
class Bringing:
    """Chunks [first, end) of a shard that a member asked this node to fetch for it."""

    asker: NodeId
    shard: ShardRef
    first: int
    end: int


@dataclass
class Revision:
    """How often anything changed from which something new may follow: one for all runs of a node."""

    number: int = 0
    due: float = inf  # when something follows from the time alone
    _last_due: float = -inf

    def bump(self) -> None:
        self.number += 1

    def bump_at(self, time: float) -> None:
        """What failed then may be tried again."""
        self.due, self._last_due = min(self.due, time), max(self._last_due, time)

    def tick(self, now: float) -> None:
        if now >= self.due:
            self.bump()
            self.due = self._last_due if self._last_due > now else inf


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


@dataclass
class RunState:
    """See the module. `restored`: the run may have got somewhere before this node knew it."""

    me: NodeId
    status: RunPut
    pipeline: Pipeline
    opened_at: float
    restored: bool = False
    revision: Revision = field(default_factory=Revision)
    versions: Versions = field(init=False)
    holdings: Holdings = field(init=False)
    catch_up: CatchUp = field(init=False)
    ability: Ability = field(init=False)
    loans: Loans = field(init=False)
    failures: Failures = field(default_factory=Failures)
    own_updates: OwnUpdates = field(default_factory=OwnUpdates)
    steps: dict[int, Step] = field(default_factory=dict)
    progress: dict[int, Progress] = field(default_factory=dict)  # of steps that were looked at
    calls: dict[int, Call] = field(default_factory=dict)
    gathering: dict[TaskKey, float] = field(default_factory=dict)  # units that wait for their inputs here, since when
    retry_at: dict[TaskKey, float] = field(default_factory=dict)  # units that came to nothing here, until when
    skipped: dict[TaskKey, Skip] = field(default_factory=dict)  # partitions (by their chain's first stage) left out
    keep_for: set[tuple[ShardRef, NodeId]] = field(default_factory=set)  # shards that leaving members asked to keep
    bringing: dict[Bringing, tuple[NodeId, float]] = field(default_factory=dict)  # who holds it, until when to try
    committed_step: int = 0
    freed_before: int = 0  # books of earlier steps are gone
    freed_amid: range = range(0)  # and those of these, updates amid a step of the pipeline
    is_leaving: bool = False  # the run starts nothing more here
    drained_before: frozenset[NodeId] = frozenset()  # who was drained when this node was asked to leave
    is_paused: bool = False  # in the smaller part of a split, where the pipeline asks that this part waits
    is_cleared: bool = False  # the run is over, and nothing of it is left here but its status
    advanced_at: float = field(init=False)  # when the own head last changed
    refreshed_at: float = 0.0  # when all was last said again that others may not have heard
    last_started: float = 0.0  # for fairness among runs
    refused_at: float = -1.0  # when this node's store last had no room for it
    _plans: dict[int, StepPlan] = field(default_factory=dict)
    _sources: dict[tuple[VersionId, int], Source] = field(default_factory=dict)  # by version worked from, and step
    _begun_books: int = 0

    def __post_init__(self) -> None:
        self.versions = Versions(self.me)
        self.holdings = Holdings(self.id, self.me)
        self.catch_up = CatchUp(self.versions, self.holdings)
        self.ability = Ability(self.id, self.pipeline, has_files=bool(self.status.files))
        self.loans = Loans(self.me)
        self.advanced_at = self.opened_at
        for number in (0, *self.pipeline.ahead_of(0)):
            self.step(number).take_roster(replace(self.status.roster, step=number))

    # What is asked --------------------------------------------------------------------------------------------------

    @property
    def id(self) -> RunId:
        return self.status.run

    @property
    def spec(self) -> SpecId:
        return SpecId(self.pipeline.id)

    @property
    def last_step(self) -> int:
        """The number of the final version."""
        return self.pipeline.schedule.versions

    @property
    def is_active(self) -> bool:
        return self.status.state == runs.ACTIVE

    @property
    def position(self) -> Header | None:
        """The version this node works from: the one it copies, else its own newest."""
        return self.catch_up.target or self.versions.own

    def step(self, number: int) -> Step:
        if number not in self.steps:
            self._begun_books += 1
            self.steps[number] = Step(number, self._begun_books)
        return self.steps[number]

    def plan(self, number: int) -> StepPlan:
        if number not in self._plans:
            if len(self._plans) > PLANS_KEPT + self.pipeline.ahead:
                del self._plans[next(iter(self._plans))]
            self._plans[number] = make_plan(self.pipeline, number)
        return self._plans[number]

    def is_near(self, number: int) -> bool:
        """Whether books of this step are kept: not yet freed, and not further ahead than anybody can be."""
        newest = min(self._newest_step() + STEPS_AHEAD, self.last_step)
        is_kept = self.freed_before <= number and number not in self.freed_amid
        return is_kept and (number <= newest or number in self.pipeline.ahead_of(newest))

    def _newest_step(self) -> int:
        """Of the versions that this node knows of."""
        own = self.versions.own
        return max(self.versions.newest_step, own.step if own is not None else 0)

    def is_of(self, call: Call, header: Header) -> bool:
        """Whether what a call does is for a node that works from `header`'s version: rollouts may have begun before
        that was made."""
        if call.parent == header.id:
            return True
        number = call.unit.step
        is_open = number == header.step or number in self.pipeline.ahead_of(header.step)
        if not is_open or not isinstance(call.work, ChainWork):
            return False
        source = self.source(header, number)
        return call.reads[0] in self.older(header, number) or (source is not None and call.reads[0] == source.id)

    def source(self, header: Header, number: int) -> Source | None:
        """What the rollouts of a step are sampled from, at a node that works from `header`'s version; None where that
        is a version of which nothing is known here."""
        plan = self.plan(number)
        version = self.began(header) if plan.is_carried else header
        if version is None:
            return None
        key = version.id, number
        if key not in self._sources:
            self._sources = {each: source for each, source in self._sources.items() if each[0] in self.versions.headers}
            self._sources[key] = sampled(self.pipeline, version, plan.samples_from)
        return self._sources[key]

    def older(self, header: Header, number: int) -> tuple[VersionId, ...]:
        """The versions before `header`'s that rollouts of a step may be of as well, where each is of the newest that
        its sampler had."""
        plan = self.plan(number)
        if plan.is_carried or not plan.max_staleness or plan.oldest >= header.step:
            return ()
        return tuple(head.version for head in self.versions.led_to(header) if head.step >= plan.oldest)

    def views(self, now: float, mesh: MeshView, header: Header) -> list[StepView]:
        """The step that begins at `header`'s version, and those ahead whose rollouts are sampled from what there is:
        as many as the pipeline says, if they have a roster."""
        ahead = [number for number in self.pipeline.ahead_of(header.step) if self._is_open_ahead(number)]
        return [self.view(now, mesh, header, number) for number in (header.step, *ahead)]

    def _is_open_ahead(self, number: int) -> bool:
        step = self.steps.get(number)
        return step is not None and step.roster is not None and bool(sealed_chains_of(self.plan(number), MANIFEST))

    def view(self, now: float, mesh: MeshView, header: Header, number: int | None = None) -> StepView:
        """The step that begins at `header`'s version, or the one of that number ahead of it, as this node sees it."""
        number = header.step if number is None else number
        if number not in self.progress:
            self.progress[number] = Progress()
        mine = [call.unit for call in self.calls.values() if self.is_of(call, header)]
        is_ahead = number > header.step
        running = tuple(unit for unit in mine if (unit.step == number if is_ahead else unit.step <= number))
        return StepView(
            now,
            self.me,
            self.id,
            mesh.living,
            mesh.suspicion_s,
            self.step(number),
            self.plan(number),
            self.source(header, number),
            header,
            self.holdings,
            self.failures,
            # what is ahead has a home that comes to it later, and what nobody can fetch is of no use
            is_idle=not (running or is_ahead or mesh.is_cut_off),
            loans=self.loans,
            ability=self.ability,
            offers=mesh.offers,
            skipped=self.skipped,
            running=running,
            slots=mesh.slots.get(self.me, 1),
            drained=mesh.drained,
            kept=self.progress[number],
            older=self.older(header, number),
            is_rejoining=mesh.is_rejoining,
            behind=self.versions.behind(header.head),
        )

    def began(self, header: Header) -> Header | None:
        """The version that the pipeline's step began with in which `header`'s is: its rollouts are sampled from it."""
        return self.versions.ancestor(header, self.pipeline.schedule.place(header.step).first)

    def told_step(self, number: int) -> int:
        """The pipeline's step of the version with this number, for people; whatever number a member says."""
        return self.pipeline.schedule.nearest(number).step

    def taken_on(self, view: StepView) -> tuple[TaskKey, ...]:
        """What this node has in hand of a step: it runs here, was taken from others, or waits for inputs that flow."""
        moved_at = self.holdings.advanced_at
        flowing = [
            unit
            for unit, since in self.gathering.items()
            if unit.step == view.step.number and view.now - max(since, moved_at) <= view.suspicion_s
        ]
        held = [unit for unit in self.loans.held() if unit.step == view.step.number]
        return tuple(dict.fromkeys([*view.running, *held, *flowing]))

    def persist(self) -> Persist:
        return Persist(f"runs/{self.id}", runs.dump(self.status))

    def end_report(self, how: Mapping[str, Any]) -> Report:
        """That it is active no more. `how`: it ended, if it did not give way."""
        other = runs.yields_to(self.status)
        if other is not None:
            return Report("run.gave_way", {"run": self.id, "to": other}, "warning")
        return Report("run.ended", {"run": self.id, **how})

    def is_more_coming(self, shard: ShardId) -> bool:
        """Whether it is an output of partitions of which others are on their way: who reads one waits for all."""
        held = self.holdings
        coming = [
            any(held.is_coming(ref) for each in step.by_part[record.task.part].values() for ref in each.shards)
            for step in self.steps.values()
            for record in step.named_by.get(shard, {}).values()
            if isinstance(record.task.part, Partition)
        ]
        return bool(coming) and all(coming)

    # What changes it ------------------------------------------------------------------------------------------------

    def found_no_room(self, now: float) -> None:
        """The store refused room for something of the run."""
        self.refused_at = now

    def take_status(self, status: RunPut) -> bool:
        """Merge what another node knows of the run's status. True if it moved on."""
        mine = self.status  # all else its id has settled
        told = replace(mine, state=status.state, attempt=status.attempt, outcome=status.outcome)
        before, self.status = self.status, runs.merge(self.status, told)
        if self.status == before:
            return False
        self.revision.bump()
        return True

    def end(self, state: runs.Lifecycle, outcome: dict[str, Any]) -> None:
        """The run is over for everybody; see status.py for the states. How far it came is told with it, if it is known
        here: what else tells of that goes with the memory of those who had it."""
        newest = self._newest_step()
        told = {"step": self.told_step(newest)} if newest or self.versions.own is not None else {}
        self.status = runs.ended(self.status, state, told | outcome)
        self.revision.bump()

    def lapse(self, now: float, mesh: MeshView) -> None:
        """Loans that nobody took up in time are over."""
        self.loans.lapse(now, mesh.living)

    def advanced(self, now: float) -> None:
        """The own head changed."""
        self.advanced_at = now
        self.catch_up.restart_patience()

    def started(self, now: float, number: int, call: Call) -> None:
        """A work of the run goes to a slot."""
        self.calls[number] = call
        self.last_started = now

    def inherit_calls(self, calls: Mapping[int, Call]) -> None:
        """Calls of an attempt that failed go on in this one."""
        self.calls.update(calls)

    def change_call(self, number: int, **fields: Any) -> None:
        """What is told of a call that runs: fields of it, as they are now."""
        if number in self.calls:
            self.calls[number] = replace(self.calls[number], **fields)

    def end_call(self, number: int) -> Call | None:
        """The call has ended, or is given up. None if it was given up before."""
        return self.calls.pop(number, None)

    def gather(self, now: float, units: Iterable[TaskKey]) -> None:
        """These are this node's to do, and their inputs are on their way."""
        self.gathering = {unit: self.gathering.get(unit, now) for unit in units}

    def refreshed(self, now: float) -> None:
        self.refreshed_at = now

    def retry(self, unit: TaskKey, at: float) -> None:
        """`unit` came to nothing here: it is not tried again before `at`."""
        self.retry_at[unit] = at

    def commit(self, step: int) -> None:
        """The version after so many steps has enough holders."""
        self.committed_step = step

    def free_before(self, number: int) -> None:
        """The books of the steps before `number` go."""
        for earlier in [earlier for earlier in self.steps if earlier < number]:
            del self.steps[earlier]
        self.progress = {step: progress for step, progress in self.progress.items() if step >= number}
        self.failures.forget_steps_before(number)
        self.skipped = {task: skip for task, skip in self.skipped.items() if task.step >= number}
        self.retry_at = {unit: at for unit, at in self.retry_at.items() if unit.step >= number}
        self.freed_before = max(self.freed_before, number)

    def free_amid(self, numbers: range) -> None:
        """The books of these steps go, those before them stay."""
        self.freed_amid = numbers
        for number in numbers:
            self.steps.pop(number, None)
            self.progress.pop(number, None)

    def pass_over(self, target: Header) -> None:
        """Books of steps before the version that is copied go, but for those of the own one, from which this node goes
        on should the copy come to nothing; and those since that are so far back that nobody goes on from there."""
        own = self.versions.own.step if self.versions.own is not None else 0
        first = max(target.step, self._newest_step() - FOLLOWED_STEPS)
        open_steps = {target.step, self.pipeline.schedule.place(target.step).first}
        for number in [number for number in self.steps if own < number < first and number not in open_steps]:
            del self.steps[number]
            self.progress.pop(number, None)

    def skip(self, skip: Skip) -> None:
        """The manifest of the task's step will lack this partition: nobody runs it any more."""
        self.skipped[skip.task] = skip

    def keep(self, shards: Collection[ShardRef], source: NodeId) -> None:
        """`source` leaves, and asks this node to keep these shards, which nobody else holds."""
        self.keep_for.update((ref, source) for ref in tuple(shards)[: MAX_KEPT - len(self.keep_for)])

    def kept(self, ref: ShardRef, source: NodeId) -> None:
        """The promise is kept, or cannot be any more."""
        self.keep_for.discard((ref, source))

    def bring(self, bringing: Bringing, holder: NodeId, until: float) -> None:
        """A member that cannot reach `holder` asks for what it holds."""
        self.bringing[bringing] = (holder, until)

    def brought(self, bringing: Bringing) -> None:
        """It is here, or nobody wants it any more."""
        del self.bringing[bringing]

    def lose(self, now: float, shard: ShardId) -> None:
        """The store has not what it should: claim no version any more that needs it."""
        self.holdings.lose(shard)
        self.versions.drop_with(shard)
        self.advanced(now)

    def leave(self, drained: frozenset[NodeId]) -> None:
        """This node is about to leave. `drained`: who was until now."""
        self.is_leaving, self.drained_before = True, drained

    def pause(self) -> None:
        self.is_paused = True

    def unpause(self) -> None:
        self.is_paused = False

    def let_go(self, step: int) -> None:
        """Others are at `step`: this node gives up what it holds of the run, and is to it as one that comes later."""
        self.versions.keep_only(())
        self.versions.prune(step, ())
        self.loans.clear()
        self.free_before(step)
        self.freed_amid = range(0)
        self.committed_step = self.freed_before = 0  # should they lose what they have, the run goes on from less
        self.restored = True

    def clear(self) -> None:
        """The run is over, and all that it held here is freed."""
        self.steps.clear()
        self.progress.clear()
        self.catch_up.stop()
        self.is_cleared = True

    def forget(self, node: NodeId) -> None:
        """`node` is dead, has left, or lives a new life: what it held and claimed is gone."""
        self.versions.forget(node)
        self.holdings.forget(node)
        self.ability.forget(node)
        for step in self.steps.values():
            step.forget(node)
