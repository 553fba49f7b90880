"""One run at one node: its books, its position in the chain of versions, and what it does next.

`look()` is the whole of it: from the books alone it derives what is due (duties.py), what to seal (sealing.py), what
to copy (follow.py) and what to free, and emits the difference to what is under way. Every input only changes the
books. So any message may be lost, and any node may stop, without a case of its own here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..claiming.ability import Ability, Offers
from ..claiming.failure import Failures
from ..controllers.advance import UNCOMMITTED, Advance
from ..controllers.alarm import Alarm
from ..controllers.beginning import Beginning
from ..controllers.checkpoints import Checkpoints
from ..controllers.ending import Ending
from ..controllers.leaving import Leaving
from ..controllers.quarantine import Quarantine
from ..controllers.rosters import Rosters
from ..controllers.stealing import Open, Stealing
from ..events import Action, Persist, Report, Rng, Stop
from ..names import NodeId, SealId, SpecId, TaskKey
from ..pipeline.plan import Chain, StepPlan
from ..pipeline.plan import plan as make_plan
from ..pipeline.spec import Pipeline
from ..rendezvous import ranked
from ..run_state import status as runs
from ..shards.holdings import Holdings
from ..steps.blocks import block_duties, told_now
from ..steps.duties import Batch, Desk, Duty, chain_duties, gradient_cover, make_batch, slice_duties
from ..steps.sealing import MANIFEST, UPDATE, chosen, is_kept, is_turn, next_manifest, next_update, sealed_chains
from ..steps.step import Step
from ..versions import facts
from ..versions.catch_up import Follower
from ..versions.versions import Versions
from ..wire.steps import Header, RunPut, Seal, Standing
from ..work import ApplyWork, SaveWork, inputs_of
from .inbox import Postbox
from .outcomes import Call, Slot

PLANS_KEPT = 4  # steps to each side of the one just asked for, whose plans are remembered


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a node tells its runs at every look."""

    living: frozenset[NodeId]
    stable: frozenset[NodeId]
    suspicion_s: float
    incarnation: int
    is_gathered: bool  # whether the members of this node's last life are back, or were waited for
    waiting: frozenset[int] = frozenset()  # calls that wait in a slot's queue
    offers: Offers = field(default_factory=dict)  # what each member has that a stage may require
    is_shared: bool = False  # whether several runs want this node's slots
    slots: Mapping[NodeId, int] = field(default_factory=dict)  # how many works each member runs at once, if not one


class Run:
    """See the module. Knows nothing of sockets, engines or other runs."""

    def __init__(
        self,
        me: NodeId,
        status: RunPut,
        pipeline: Pipeline,
        calls: Iterator[int],
        restored: bool,
        now: float,
        saved: Iterable[Header] = (),
        unread: Iterable[str] = (),
        thief: Rng | None = None,
    ) -> None:
        """`calls`: numbers for works, one sequence for all runs of a node. `restored`: it may have got somewhere
        before. `saved`: the checkpoints of it on this node's disk. `unread`: those that cannot be
        read. `thief`: chance, to choose whom to ask for work; without it nothing is stolen."""
        self.me = me
        self.id = status.run
        self.status = status
        self.pipeline = pipeline
        self.last_step = pipeline.schedule.steps
        self.spec = SpecId(pipeline.id)
        self.restored = restored
        self.versions = Versions(me)
        self.holdings = Holdings(status.run, me)
        self.follower = Follower(self.versions, self.holdings)
        self.failures = Failures()
        self.beginning = Beginning(self)
        self.checkpoints = Checkpoints(self, saved, unread)
        self.ability = Ability(status.run, pipeline)
        self.alarm = Alarm(self, now)
        self.quarantine = Quarantine(self)
        self.blocked = ""  # what the open step needs and no living member offers
        self.advance = Advance(self)
        self.ending = Ending(self)
        self.leaving = Leaving(self)
        self.rosters = Rosters(self)
        self.postbox = Postbox(self)
        self.stealing = Stealing(self, thief)
        self.slot = Slot(self, calls)
        self.steps: dict[int, Step] = {}
        self.calls: dict[int, Call] = {}
        self.retry_at: dict[TaskKey, float] = {}
        self.opened_at = now
        self.advanced_at = now  # when the own head last changed
        self.last_started = 0.0  # for fairness among runs
        self._plans: dict[int, StepPlan] = {}
        self._batch_known: Batch | None = None
        self.step(0).take_roster(status.roster)

    def inherit(self, failed: Run, out: list[Action]) -> None:
        """Take over what this run still has in memory of the attempt before: its versions, and one being saved."""
        held = failed.versions.held.values()
        state = {ref.id: ref for header in held for _, ref in header.state}
        for call, running in failed.calls.items():
            if isinstance(running.work, SaveWork):
                self.calls[call] = running
            else:
                out.append(Stop(call))
        saving = {ref.id: ref for running in self.calls.values() for ref, _, _ in inputs_of(running.work)}
        state = {**saving, **state}
        failed.holdings.drop([shard for shard in failed.holdings.all_here() if shard not in state], out)
        for ref in state.values():
            self.holdings.keep(ref, is_state=True)
        self.versions.lineage = failed.versions.lineage
        for header in held:
            self.versions.hold(header)

    # Books ----------------------------------------------------------------------------------------------------------

    def step(self, number: int) -> Step:
        return self.steps.setdefault(number, Step(number))

    def plan(self, number: int) -> StepPlan:
        if number not in self._plans:
            self._plans = {n: plan for n, plan in self._plans.items() if abs(n - number) <= PLANS_KEPT}
            self._plans[number] = make_plan(self.pipeline, number)
        return self._plans[number]

    @property
    def position(self) -> Header | None:
        """The version this node works from: the one it copies, else its own newest."""
        return self.follower.target or self.versions.own

    @property
    def is_active(self) -> bool:
        return self.status.state == runs.ACTIVE

    def standing(self, now: float, around: Surroundings) -> Standing:
        own = self.versions.own
        best = self.versions.best(now, around.living)
        head, holder = best or (None, None)
        backlog, withdrawn = self.stealing.backlog(around), self.ability.withdrawn
        mine = own.head if own else None
        return Standing(self.id, around.incarnation, mine, head, holder, backlog, withdrawn)

    def desk(self, now: float, around: Surroundings, header: Header) -> Desk:
        running = tuple(call.unit for call in self.calls.values() if call.parent == header.id)
        self.stealing.loans.lapse(now, around.living)
        return Desk(
            now,
            self.me,
            self.id,
            around.living,
            around.suspicion_s,
            self.step(header.step),
            self.plan(header.step),
            header,
            self.holdings,
            self.failures,
            is_idle=not running,
            loans=self.stealing.loans,
            ability=self.ability,
            offers=around.offers,
            skipped=self.quarantine.skipped,
            running=running,
            slots=around.slots.get(self.me, 1),
        )

    def forget(self, node: NodeId) -> None:
        """`node` is dead, has left, or lives a new life: what it held and claimed is gone."""
        self.versions.forget(node)
        self.holdings.forget(node)
        self.stealing.forget(node)
        self.checkpoints.forget(node)
        self.ability.forget(node)
        for step in self.steps.values():
            step.forget(node)

    def persist(self) -> Persist:
        return Persist(f"runs/{self.id}", runs.dump(self.status))

    def take_status(self, status: RunPut) -> bool:
        """Merge what another node knows of the run's status. True if it moved on."""
        mine = self.status  # all else its id has settled
        told = replace(mine, state=status.state, attempt=status.attempt, outcome=status.outcome)
        before, self.status = self.status, runs.merge(self.status, told)
        return self.status != before

    def summary(self) -> dict[str, Any]:
        """What people are told of the run."""
        outcome = runs.outcome(self.status)
        own = self.versions.own
        settled = tuple(sorted(outcome["facts"].items())) if "facts" in outcome else own.facts if own else ()
        state = "done" if self.status.state == runs.FINISHED else self.status.state
        best = max((head.step for head in self.versions.heads.values()), default=0)
        return {
            "run": self.id,
            "name": self.pipeline.name,
            "state": state,
            "step": outcome.get("step", max(best, own.step if own else 0)),
            "steps": self.last_step,
            "version": outcome.get("version", own.id if own else None),
            "weights": outcome.get("weights", facts.named(own)["weights"] if own else None),
            "evals": facts.evals(settled),
            "error": outcome.get("error"),
            "evidence": outcome.get("evidence", []),
            "skipped": facts.skipped(settled),
            "blocked": self.blocked if self.is_active else "",
            "starved": self.slot.is_starved and self.is_active,
            "paused": self.rosters.is_paused and self.is_active,
            "saved": saved.step if (saved := self.checkpoints.best) is not None else None,
            "spec": self.status.spec,
        }

    # The look -------------------------------------------------------------------------------------------------------

    def look(self, now: float, around: Surroundings, slots: int) -> list[Action]:
        """Derive what is due and emit what is not yet under way. `slots`: how many more works may start."""
        out = self._look(now, around, slots)
        if self.is_active:
            self.alarm.look(now, around, slots, out)
        return out

    def _look(self, now: float, around: Surroundings, slots: int) -> list[Action]:
        out: list[Action] = []
        self.holdings.trust_again(now)
        out += self.ability.try_again(now)
        if self.is_active:
            self.quarantine.judge(now, around, out)
        if not self.is_active:
            self.ending.wind_up(now, around, out)
            return out
        if self.versions.own is None and self.beginning.look(now, around, slots, out):
            return out
        before = self.versions.own
        self.holdings.step = self.position.step if self.position is not None else 0
        applying = any(isinstance(call.work, ApplyWork) for call in self.calls.values())
        lost = self.follower.look(now, around.living, around.suspicion_s, applying, out)
        if self.versions.own is not before:
            self.advance.moved(now, around, before, {}, out, lost=lost)
        duties: list[Duty] = []
        header = None
        while self.position is not header:  # a step without an update hands its state on at once
            header = self.position
            assert header is not None
            self.slot.stop_stale(header, out)
            duties = self._work_from(now, around, header, out)
        if header is None:
            return out
        if self.versions.own is not None:
            duties += self.ending.look(now, around, out)
        if self.leaving.is_begun:
            self.leaving.look(now, around, out)
        elif self.is_active:
            self.slot.start(now, around, duties, slots, out)
        return out

    def _work_from(self, now: float, around: Surroundings, header: Header, out: list[Action]) -> list[Duty]:
        """Seal what can be sealed at this position and apply what is sealed, else the step's duties."""
        desk = self.desk(now, around, header)
        self.rosters.mind_split(desk, out)
        if self.rosters.is_paused or not self.rosters.has_one(desk, around, out):
            return []
        if desk.step.opened_at is None:
            desk.step.opened_at = now
        batch: Batch | None = None
        previous: str | None = header.id
        open_chains: list[Chain] = []
        if sealed_chains(desk, MANIFEST):
            manifest = self._settle(desk, around, MANIFEST, header.id, out)
            batch = self._batch(desk, manifest)
            if batch is not None:
                self._tell_blocks(desk, batch, out)
            previous = manifest.id if manifest else None
        update = self._settle(desk, around, UPDATE, previous, out)
        duties: list[Duty] = []
        is_done = update is not None and all(desk.counts(record) for record in update.entries)
        if not is_done and (previous is None or (batch is not None and gradient_cover(desk, batch) is None)):
            open_chains += sealed_chains(desk, MANIFEST)
        open_chains += sealed_chains(desk, UPDATE)
        self._mind_needs(desk, () if is_done else tuple(open_chains), out)
        self.stealing.enter(Open(desk, () if is_done else tuple(open_chains), None if is_done else batch))
        if update is not None and self.follower.target is None and header.step < self.last_step:
            duties = self.advance.apply(desk, around, update, out)
        if is_done:
            return duties
        duties += [duty for chain in open_chains for duty in chain_duties(desk, chain)]
        if batch is not None:
            duties += block_duties(desk, batch) + slice_duties(desk, batch)
            self.advance.prefetch(desk, batch, out)
        self._back_up(desk, out)
        return duties

    def _mind_needs(self, desk: Desk, chains: tuple[Chain, ...], out: list[Action]) -> None:
        """Say what is missing as soon as nobody can go on, and when somebody can again."""
        training = desk.plan.training
        open_stages = [chain.stages for chain in chains] + ([(training.stage,)] if chains and training else [])
        missing = {
            word: stage
            for stages in open_stages
            for word, stage in desk.ability.lacking(stages, desk.living, desk.offers).items()
        }
        before, self.blocked = self.blocked, ", ".join(f"`{word}` (stage {stage})" for word, stage in missing.items())
        if self.blocked != before:
            fields = {"run": self.id, "step": desk.step.number, "needs": self.blocked or before}
            out.append(Report("run.blocked", fields, "warning") if self.blocked else Report("run.unblocked", fields))

    def _tell_blocks(self, desk: Desk, batch: Batch, out: list[Action]) -> None:
        """Tell of blocks that this node's slots made, once they are summed as far as they can be here."""
        records = told_now(desk, batch, self.leaving.is_begun)
        for record in records:
            desk.step.add(record, own=True)
        if records:
            owners = self.stealing.loans.owners(unit for record in records for unit in record.task.singles)
            self.postbox.put_records(desk, records, out, owners)

    def _batch(self, desk: Desk, manifest: Seal | None) -> Batch | None:
        """What the manifest gives training: derived once for all looks at it."""
        if manifest is None or desk.plan.training is None:
            return None
        if self._batch_known is None or self._batch_known.manifest.id != manifest.id:
            self._batch_known = make_batch(manifest, desk.plan.training)
        return self._batch_known

    def _settle(
        self, desk: Desk, around: Surroundings, kind: str, previous: str | None, out: list[Action]
    ) -> Seal | None:
        """The settled seal that counts, after doing what this node can do towards one."""
        step, current = desk.step, chosen(desk, self.versions, kind, previous)
        if previous is None:
            return current
        pending = chosen(desk, self.versions, kind, previous, settled=False)
        if pending is None or (current is not None and pending.generation <= current.generation):
            batch = self._batch(desk, current if kind == MANIFEST else step.seals.get(SealId(previous)))
            pending = (
                next_manifest(desk, self.spec, current, batch)
                if kind == MANIFEST
                else next_update(desk, self.versions, self.spec, previous, current, batch)
            )
        if pending is None or pending.id in step.settled:  # made once already: telling all again would never end
            return current
        if pending.id not in step.acks and is_turn(desk, f"settle/{pending.id}"):
            step.keep(pending)
            step.acks[pending.id] = {self.me}
            self.postbox.put_seal(desk, pending, out)
        if pending.id in step.acks and is_kept(desk, pending):
            step.settled.add(pending.id)
            self.postbox.announce_seal(desk, pending, self.rosters.after(desk, pending, around), out)
            return chosen(desk, self.versions, kind, previous)
        return current

    def _back_up(self, desk: Desk, out: list[Action]) -> None:
        """Be the second holder of records that have only one: the first replica that has not made them is."""
        due = min(2, len(desk.living))
        late = desk.step.waited(desk.now, "back-up") > desk.suspicion_s
        for record in desk.step.all_records():
            if not record.task.part.startswith("p") or record.id in desk.step.mine:
                continue
            held = [set(desk.holdings.live_holders(ref.id, desk.living)) - {self.me} for ref in record.shards]
            if not held or any(not holders for holders in held) or all(len(holders) >= due for holders in held):
                continue
            spare = [node for node in ranked(record.id, desk.replicas) if any(node not in h for h in held)]
            if not late and spare and spare[0] != self.me:
                continue
            if self.me not in desk.replicas:
                continue
            here = [self.holdings.want(desk.now, ref, desk.living, out) for ref in record.shards]
            if all(here):
                desk.step.add(record, own=True)
                self.postbox.put_records(desk, [record], out)

    def check(self) -> None:
        """Assert what must hold after every event."""
        own = self.versions.own
        if own is not None and self.is_active:
            missing = [name for name, ref in own.state if ref.id not in self.holdings.local]
            assert not missing, f"{own.id} is claimed, but {missing} of it is not here"
        for call in self.calls.values():
            assert call.parent is None or call.parent in self.versions.headers
        assert len(self.versions.held) <= 2 + UNCOMMITTED + 1
        assert not (self.ending.is_cleared and self.calls)
