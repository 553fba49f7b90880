"""The view: all that a node looks at when it derives a step's duties and seals, at one moment, and what that shows.

The books and the plan of the step, the version it starts from, who lives and what they can run. Queries only.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice

from ..claiming.ability import Ability, Offers
from ..claiming.deal import Slots, beside, deal, homes, trained_by
from ..claiming.failure import Failures
from ..claiming.loans import Loans
from ..names import MANIFEST, Block, Coefficients, NodeId, Partition, SealId, Slice, TaskKey, VersionId
from ..pipeline.plan import Chain, StepPlan, Training
from ..ranges import State, in_order, shards_of
from ..rendezvous import ranked
from ..shards.holdings import Holdings
from ..versions import kept
from ..versions.lagged import Source
from ..wire.steps import Header, Record, Skip
from .progress import ChainProgress, Progress
from .step import Step


def step_order(run: str, step: int, nodes: tuple[NodeId, ...]) -> tuple[NodeId, ...]:
    """The order in which a step is dealt and its seals are made: another one each step, the same for everybody."""
    return ranked(f"{run}/{step}", nodes)


@lru_cache(maxsize=256)
def _succession(run: str, step: int, members: tuple[NodeId, ...], on_duty: frozenset[NodeId]) -> tuple[NodeId, ...]:
    rest = tuple(node for node in sorted(on_duty) if node not in members)
    order = (*step_order(run, step, members), *step_order(run, step, rest))
    return tuple(node for node in order if node in on_duty)


@dataclass(slots=True)
class StepView:
    """What duties are derived from: the step's books and plan, the versions it reads and trains, and who lives."""

    now: float
    me: NodeId
    run: str
    living: frozenset[NodeId]
    suspicion_s: float
    step: Step
    plan: StepPlan
    reads: Source | None  # what rollouts are sampled from: `trains`, or parameters of a version before it, if known
    trains: Header  # the version that is updated, and evaluated; of a step ahead the one that this node works from
    holdings: Holdings
    failures: Failures
    is_idle: bool  # whether nothing of this step runs here, and might: only then may it run what others were dealt
    loans: Loans
    ability: Ability
    offers: Offers = field(default_factory=dict)  # what each member has that a stage may require
    skipped: Mapping[TaskKey, Skip] = field(default_factory=dict)  # partitions in quarantine: nobody runs them
    running: tuple[TaskKey, ...] = ()  # what runs here for this step
    slots: int = 1  # how many works this node runs at once
    drained: frozenset[NodeId] = frozenset()  # of the living, those that take no new work
    kept: Progress = field(default_factory=Progress)  # as of an earlier view of this step
    older: tuple[VersionId, ...] = ()  # versions before `reads` that rollouts may have been sampled from as well
    is_rejoining: bool = False  # whether this node slept for long, and does not know yet what others did meanwhile
    behind: frozenset[NodeId] = frozenset()  # those that copy a version and have not come to this step yet
    on_duty: frozenset[NodeId] = field(init=False)  # all that are not drained
    _at_work: frozenset[NodeId] | None = field(init=False, default=None)
    _trained_by: tuple[NodeId, ...] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.on_duty = self.living - self.drained if self.drained else self.living

    @property
    def is_ahead(self) -> bool:
        """Whether the version that the step trains does not exist here yet: only its rollouts are done."""
        return self.step.number > self.trains.step

    @property
    def at_work(self) -> frozenset[NodeId]:
        """Who claims to run something in this step, as it was when this was first asked for."""
        if self._at_work is None:
            self._at_work = self.step.at_work(self.now)
        return self._at_work

    def counts(self, record: Record) -> bool:
        """A record counts while each of its outputs has a live holder."""
        return all(self.holdings.is_live(ref.id, self.living) for ref in record.shards)

    @property
    def copies(self) -> int:
        """How many holders what a manifest names should have: two, or as many nodes as are on duty."""
        return min(2, len(self.on_duty))

    @property
    def progress(self) -> Progress:
        """How far the step's partitions are now."""
        self.kept.follow(self.step, self.holdings, self.living, self.copies, self.counts)
        return self.kept

    def progress_of(self, chain: Chain) -> ChainProgress:
        """How far a chain's partitions are now."""
        return self.progress.of(self.step, chain, self.accepts(chain), self.counts)

    def rounds(self, chain: Chain) -> int:
        """How many rounds of a chain there are to be, by what its partitions gave so far. A step that is carried on has
        as many as there were."""
        if chain.rounds.most == 1:
            return 1
        if self.plan.is_carried and self.step.carried_to == self.trains.id:
            return self.step.carried_rounds[chain.stages[0]]
        found = self.progress_of(chain)
        return chain.rounds.due(
            kept if all(unit in self.skipped for unit in self._in_round(chain, index)) else None
            for index, kept in enumerate(found.kept)
        )

    def _in_round(self, chain: Chain, index: int) -> Iterator[TaskKey]:
        """The unfinished partitions of a round."""
        unfinished, parts = self.progress_of(chain).unfinished, chain.round(index)
        for partition in unfinished[bisect_left(unfinished, parts.start) : bisect_left(unfinished, parts.stop)]:
            yield TaskKey(self.step.number, chain.stages[0], Partition(partition))

    def end_of(self, chain: Chain) -> int:
        """The first partition that is in none of a chain's rounds so far."""
        return chain.round(self.rounds(chain)).start

    def accepted(self, chain: Chain, rounds: int) -> list[Record]:
        """The records of a chain's whole partitions, in its first so many rounds."""
        done = self.progress_of(chain).done[: chain.round(rounds).start]
        return [record for records in done if len(records) == len(chain.stages) for record in records]

    def is_over(self, chain: Chain) -> bool:
        """Whether all partitions of a chain's rounds so far are finished, or in quarantine."""
        rounds = range(self.rounds(chain))
        return all(unit in self.skipped for index in rounds for unit in self._in_round(chain, index))

    def unfinished(self, chain: Chain) -> dict[int, TaskKey]:
        """What is to be done of a chain, in its rounds so far: partitions and their units. Those in quarantine are
        finished."""
        units = {
            unit.part.index: unit
            for index in range(self.rounds(chain))
            for unit in self._in_round(chain, index)
            if isinstance(unit.part, Partition)
        }
        return {p: unit for p, unit in units.items() if unit not in self.skipped} if self.skipped else units

    def covered(self, training: Training, manifest: SealId) -> Set[int]:
        """The leaves of a training that lie in a block which counts, if it read this manifest."""
        return self.progress.leaves(self.step, training.stage, (self.trains.id, manifest), self.counts)

    def reduced(self, training: Training, slices: tuple[Slice, ...], manifest: SealId) -> tuple[Record | None, ...]:
        """Of each slice of a training's gradient the record that counts, if it read this manifest."""
        return self.progress.slices(self.step, training.stage, slices, (self.trains.id, manifest), self.counts)

    @property
    def training(self) -> Training | None:
        """The training whose update is open."""
        return next(iter(self.plan.trainings), None)

    @property
    def roster(self) -> tuple[NodeId, ...]:
        """The step's members in its order, the dead included. All updates of a step of the pipeline have one, so that
        each trains where the samples lie by now."""
        assert self.step.roster is not None
        return step_order(self.run, self.plan.first, self.step.roster.members)

    @property
    def trainers(self) -> tuple[NodeId, ...]:
        assert self.step.roster is not None
        return step_order(self.run, self.plan.first, self.step.roster.trainers)

    @property
    def reducers(self) -> tuple[NodeId, ...]:
        """The trainers, as slices are dealt to them: in every step alike, so that what a node fetches for its slices
        comes to lie where those chunks lay in the step before. Others would take fresh memory."""
        assert self.step.roster is not None
        return ranked(self.run, self.step.roster.trainers)

    @property
    def capacity(self) -> Mapping[NodeId, int]:
        """How many works the roster's members run at once."""
        assert self.step.roster is not None
        return self.step.roster.capacity

    @property
    def succession(self) -> tuple[NodeId, ...]:
        """Who seals, first to last: the roster's living, then all others that live; none that is drained."""
        assert self.step.roster is not None
        return _succession(self.run, self.step.number, self.step.roster.members, self.on_duty)

    @property
    def replicas(self) -> tuple[NodeId, ...]:
        """Who keeps the step's records and seals: the first three of the succession, so the sealer is one of them."""
        return self.succession[:3]

    def back_up_order(self, task: TaskKey, holders: Collection[NodeId]) -> tuple[NodeId, ...]:
        """Who is to hold, beside these, what a partition made: the first at once, each next one if that did not help.
        The first is who trains on it, or would if the leaves were cut a little further on, where bytes are many, and
        a replica where they are few; then come the replicas. All that its chain made has the same second holder; what
        another chain made of the partition of that number its maker need not know of."""
        part, order = task.part, list(ranked(f"{self.run}/{self.step.number}/{task.part}", self.replicas))
        if isinstance(part, Partition) and self.step.is_heavy(self._chain_of(task.stage), part):
            near = (node for node in self._beside(part) if node not in holders and node not in self.behind)
            order[:0] = islice(near, 1)
        order = [node for node in dict.fromkeys(order) if node not in holders]
        return tuple(sorted(order, key=self.behind.__contains__))  # whose link is full of a version last

    def _chain_of(self, stage: str) -> tuple[str, ...]:
        """The stages of the chain that a stage is in."""
        return next((chain.stages for chain in self.plan.chains if stage in chain.stages), (stage,))

    def _beside(self, part: Partition) -> Iterator[NodeId]:
        """Who is to train on a partition, then on those next to it."""
        if self._trained_by is None:
            self._trained_by = self._expect_trainers()
        if self._trained_by:
            yield from beside(self._trained_by, part.index % len(self._trained_by))

    def _expect_trainers(self) -> tuple[NodeId, ...]:
        """By partition of a round, who is to train on it, as far as that is known before it is sampled."""
        training = self.training
        if training is None:
            return ()
        sampled = next((chain for chain in self.plan.chains if training.groups_from in chain.stages), None)
        able = self.able((training.stage,))
        members = self.dealt_to((training.stage,), self.trainers, able)
        partitions = 0 if sampled is None else len(sampled.round(0))
        return trained_by(partitions, training.leaves, members, able, self.capacity)

    def able(self, stages: Collection[str]) -> frozenset[NodeId]:
        """Members on duty that can run these stages."""
        return self.ability.able(stages, self.me, self.on_duty, self.offers)

    def dealt_to(
        self, stages: Collection[str], members: tuple[NodeId, ...], able: frozenset[NodeId]
    ) -> tuple[NodeId, ...]:
        """Those of `members` that offer what the stages require, as far as it is known; or if none of them is able
        whoever is: a joiner may be the only one that has what is needed. Who offers it not is dealt nothing, so that
        the others have runs of what there is, and no turns at what it would leave."""
        offering = self.ability.fit(stages, frozenset(node for node in members if node in self.offers), self.offers)
        dealt = tuple(node for node in members if node in offering or node not in self.offers)
        if any(node in able for node in dealt):
            return dealt
        return step_order(self.run, self.plan.first, tuple(sorted(able)))

    def is_taken(self, unit: TaskKey) -> bool:
        """Whether another living node has a partition: it claims it, or was just given it."""
        if unit in self.loans.lent:
            return True
        claimants = self.step.claimants(self.now, unit)
        return bool(claimants) and any(n in self.living for n in self.loans.believed(unit, claimants))

    def claimed_leaves(self, stage: str) -> set[int]:
        """Leaves that other living nodes have: they claim a block with them, or were just given them."""
        taken = {unit.leaves[0] for unit in self.loans.lent if unit.stage == stage and unit.leaves}
        for unit, until in self.step.claims.items():
            if unit.stage == stage and isinstance(unit.part, Block):
                claimants = [n for n, end in until.items() if end > self.now and n != self.me and n in self.living]
                if not self.loans.borrowed:
                    taken.update(unit.part.leaves if claimants else ())
                    continue
                for leaf in unit.part.leaves:
                    if self.loans.believed(TaskKey(unit.step, stage, Block.of_leaf(leaf)), claimants):
                        taken.add(leaf)
        return taken

    def source(self, chain: Chain) -> Source | None:
        """Whose parameters a chain reads: rollouts are of `reads`, what is evaluated is what is trained."""
        return self.reads if chain.sealed_in == MANIFEST else self.trains

    @property
    def sampled_with(self) -> int | None:
        """The number of the version that rollouts are of which begin here now, where they may be of any of several."""
        if not self.plan.max_staleness:
            return None
        return self.plan.samples_from if self.plan.is_carried else self.trains.step

    def accepts(self, chain: Chain) -> tuple[str, ...]:
        """What records of a chain's partitions may name first: that with which they begin here, or what it was at
        another node."""
        return (self.begins_with(chain), *(self.older if chain.sealed_in == MANIFEST else ()))

    def begins_with(self, chain: Chain) -> str:
        """What a record of a chain's partitions names first that is made now: what it read, or the version that it is
        carried to."""
        source = self.trains if self.plan.is_carried else self.source(chain)
        assert source is not None, "only what a step is carried on with may be of a version that is not known here"
        return source.id

    def coefficients(self, version: Source, stages: Collection[str]) -> Coefficients:
        """A version's coefficients of these stages."""
        return tuple(each for each in version.coefficients if each[0] in stages)


def params_of(state: State, models: Iterable[str], bases: Iterable[tuple[str, str]]) -> State:
    """What works read of a version's state: the parameters of these models, of those that are an earlier version of
    another one what it keeps of that; and what it says of the `bases` that models stand on (pipeline/plan.py:Chain)."""
    roles = [(role, f"params:{model}") for model in models for role in (f"params:{model}", kept.role(model))]
    roles += [(f"base:{owner}", f"base:{model}") for model, owner in bases]
    return in_order((name, ref) for role, name in roles for ref in shards_of(state, role))


def able_home(unit: TaskKey, home: NodeId | None, failed: frozenset[NodeId], able: frozenset[NodeId]) -> NodeId | None:
    """`home`, or if the unit failed there the next able node in the unit's order where it did not."""
    if home not in failed:
        return home
    return next((node for node in ranked(str(unit), tuple(sorted(able))) if node not in failed), home)


def partition_homes(view: StepView, chain: Chain) -> dict[TaskKey, NodeId | None]:
    """The unfinished partitions of a chain, by its first stage, and where each is to be done."""
    units = view.unfinished(chain)
    dealt = dealt_now(view, chain, view.able(chain.stages)) if units else {}
    return {unit: dealt.get(p) for p, unit in units.items()}


def dealt_now(view: StepView, chain: Chain, able: frozenset[NodeId]) -> dict[int, NodeId]:
    """Where all partitions of a chain are to be done, in its rounds so far. Each round is dealt to all."""
    members, dealt = view.dealt_to(chain.stages, view.roster, able), dict[int, NodeId]()
    for index in range(view.rounds(chain)):
        dealt |= homes(chain.round(index), members, able, view.capacity)
    return dealt


def deal_rounds(chain: Chain, members: Sequence[NodeId], slots: Slots) -> dict[int, NodeId]:
    """Whom the partitions of a chain are dealt to, those of each round for themselves."""
    dealt: dict[int, NodeId] = {}
    for index in range(chain.rounds.most):
        dealt |= deal(chain.round(index), members, slots)
    return dealt
