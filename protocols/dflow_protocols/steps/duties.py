"""Duties: what this node should run now for its open step, derived from the books at every look.

A duty is due here if the unit is unfinished and either dealt to this node (again, after a death), or an orphan: its
home lives but shows no claim in this step for a while. Deriving it twice, or on two nodes, wastes work and mixes
nothing: results are joined by content id.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ..claiming.ability import Ability, Offers
from ..claiming.deal import deal, homes
from ..claiming.failure import Failures
from ..claiming.loans import Loans
from ..names import MANIFEST, Block, NodeId, Once, Partition, ShardRef, Slice, TaskKey
from ..pipeline.plan import Chain, StepPlan, Training
from ..ranges import State, pieces, shards_of, total_bytes
from ..rendezvous import ranked
from ..shards.holdings import Holdings, Range
from ..wire.steps import Header, Record, Seal, Skip
from ..work import BlockWork, ChainWork, Groups, LeafGroups, SliceWork, Work
from .patience import Wait
from .reduction import cover, cut_leaves, slices
from .step import Step

# Order in a slot: what other nodes wait for first, what nobody waits for last.
SLICE, SUM, BLOCK, CHAIN, EVALUATE, SAVE = range(6)
ORPHAN = 10  # added to the rank of another node's unit


def step_order(run: str, step: int, nodes: tuple[NodeId, ...]) -> tuple[NodeId, ...]:
    """The order in which a step is dealt and its seals are made: another one each step, the same for everybody."""
    return ranked(f"{run}/{step}", nodes)


@dataclass(frozen=True, slots=True)
class Duty:
    """A unit of work that is due here, and the shards it needs; `reads` are the record's inputs so far."""

    rank: int
    unit: TaskKey
    work: Work
    needs: tuple[tuple[ShardRef, Range | None], ...]
    reads: tuple[str, ...]


@dataclass(slots=True)
class Desk:
    """What duties are derived from: the step's books and plan, the version it starts from, and who lives."""

    now: float
    me: NodeId
    run: str
    living: frozenset[NodeId]
    suspicion_s: float
    step: Step
    plan: StepPlan
    header: Header
    holdings: Holdings
    failures: Failures
    is_idle: bool  # whether nothing of this step runs here: only then may it run what others were dealt
    loans: Loans
    ability: Ability
    offers: Offers = field(default_factory=dict)  # what each member has that a stage may require
    skipped: Mapping[TaskKey, Skip] = field(default_factory=dict)  # partitions in quarantine: nobody runs them
    running: tuple[TaskKey, ...] = ()  # what runs here for this step
    slots: int = 1  # how many works this node runs at once
    at_work: frozenset[NodeId] = field(init=False)  # who claims to run something in this step

    def __post_init__(self) -> None:
        self.at_work = self.step.at_work(self.now)

    def counts(self, record: Record) -> bool:
        """A record counts while each of its outputs has a live holder."""
        return all(self.holdings.is_live(ref.id, self.living) for ref in record.shards)

    @property
    def roster(self) -> tuple[NodeId, ...]:
        """The step's members in its order, the dead included."""
        assert self.step.roster is not None
        return step_order(self.run, self.step.number, self.step.roster.members)

    @property
    def trainers(self) -> tuple[NodeId, ...]:
        assert self.step.roster is not None
        return step_order(self.run, self.step.number, self.step.roster.trainers)

    @property
    def capacity(self) -> Mapping[NodeId, int]:
        """How many works the roster's members run at once."""
        assert self.step.roster is not None
        return self.step.roster.capacity

    @property
    def succession(self) -> tuple[NodeId, ...]:
        """Who seals, first to last: the roster's living, then all others that live."""
        rest = tuple(node for node in self.living if node not in self.roster)
        order = (*self.roster, *step_order(self.run, self.step.number, rest))
        return tuple(node for node in order if node in self.living)

    @property
    def replicas(self) -> tuple[NodeId, ...]:
        """Who keeps the step's records and seals: the first three of the succession, so the sealer is one of them."""
        return self.succession[:3]

    def able(self, stages: Collection[str]) -> frozenset[NodeId]:
        """Living members that can run these stages."""
        return self.ability.able(stages, self.me, self.living, self.offers)

    def dealt_to(self, members: tuple[NodeId, ...], able: frozenset[NodeId]) -> tuple[NodeId, ...]:
        """`members`, or if none of them is able whoever is: a joiner may be the only one that has what is needed."""
        if any(node in able for node in members):
            return members
        return step_order(self.run, self.step.number, tuple(sorted(able)))

    def is_taken(self, unit: TaskKey) -> bool:
        """Whether another living node has a partition: it claims it, or was just given it."""
        if unit in self.loans.lent:
            return True
        claimants = self.step.claimants(self.now, unit)
        return bool(claimants) and any(n in self.living for n in self.loans.believed(unit, claimants))

    def claimed_leaves(self, stage: str) -> set[int]:
        """Leaves that other living nodes have: they claim a block with them, or were just given them."""
        taken = {unit.leaves[0] for unit in self.loans.lent if unit.stage == stage and unit.leaves}
        for unit in self.step.claims:
            if unit.stage == stage and unit.leaves:
                claimants = self.step.claimants(self.now, unit)
                for leaf in unit.leaves:
                    single = TaskKey(unit.step, stage, Block.of_leaf(leaf))
                    if any(n in self.living for n in self.loans.believed(single, claimants)):
                        taken.add(leaf)
        return taken

    def params(self, models: Collection[str]) -> State:
        """The version's parameters of these models."""
        names = {f"params:{model}" for model in models}
        return tuple((name, ref) for name, ref in self.header.state if name in names)


def is_orphan(desk: Desk, unit: TaskKey, home: NodeId | None, able: frozenset[NodeId]) -> bool:
    """Whether a unit of a living but silent home may be run by anyone able: after a delay that differs from node to
    node."""
    if home in desk.at_work or not desk.is_idle or desk.me not in able:  # who is at work will come to it
        return False
    order = ranked(str(unit), tuple(sorted(able)))
    delay = desk.suspicion_s * (1 + order.index(desk.me) / len(order))
    return desk.step.patience.lasts(desk.now, Wait.HOME, unit) > delay


def able_home(unit: TaskKey, home: NodeId | None, failed: frozenset[NodeId], able: frozenset[NodeId]) -> NodeId | None:
    """`home`, or if the unit failed there the next able node in the unit's order where it did not."""
    if home not in failed:
        return home
    return next((node for node in ranked(str(unit), tuple(sorted(able))) if node not in failed), home)


@dataclass(slots=True)
class Due:
    """What is due here of some units, and of those of others whose homes show no claim, or do."""

    here: list[Duty] = field(default_factory=list)
    silent: list[TaskKey] = field(default_factory=list)
    busy: list[TaskKey] = field(default_factory=list)

    def rank(self, desk: Desk, rank: int, unit: TaskKey, home: NodeId | None, able: frozenset[NodeId]) -> int | None:
        """The unit's rank if it is due here, else None; noted where somebody else is to come to it."""
        if desk.is_taken(unit):
            return None
        if unit in desk.loans.borrowed:
            return rank
        home = able_home(unit, home, desk.failures.nodes(unit), able)
        return rank if home == desk.me else self.orphan_rank(desk, rank, unit, home, able)

    def orphan_rank(
        self, desk: Desk, rank: int, unit: TaskKey, home: NodeId | None, able: frozenset[NodeId]
    ) -> int | None:
        """The same of a unit that has another home and is not taken."""
        if home in desk.at_work:
            self.busy.append(unit)
        elif desk.is_idle and desk.me in able:
            self.silent.append(unit)
        return rank + ORPHAN if is_orphan(desk, unit, home, able) else None

    def add(self, other: Due) -> None:
        self.here += other.here
        self.silent += other.silent
        self.busy += other.busy


def watch_homes(desk: Desk, due: Due) -> None:
    """Start the patience with homes that are silent, and end it where they are at work."""
    for unit in due.silent:
        desk.step.patience.start(desk.now, Wait.HOME, unit)
    for unit in due.busy:
        desk.step.patience.end(Wait.HOME, unit)


def partition_homes(desk: Desk, chain: Chain) -> dict[TaskKey, NodeId | None]:
    """The unfinished partitions of a chain, by its first stage, and where each is to be done. Those in quarantine are
    finished."""
    able = desk.able(chain.stages)
    members = desk.dealt_to(desk.roster, able)
    unfinished = [
        p
        for p in range(chain.partitions)
        if len(desk.step.chain(chain, p, desk.header.id, desk.counts)) < len(chain.stages)
        and TaskKey(desk.step.number, chain.stages[0], Partition(p)) not in desk.skipped
    ]
    dealt = homes(range(chain.partitions), members, able, unfinished, desk.capacity) if unfinished else {}
    return {TaskKey(desk.step.number, chain.stages[0], Partition(p)): dealt.get(p) for p in unfinished}


def chain_duties(desk: Desk, chain: Chain) -> Due:
    """The unfinished partitions of a chain that are due here; what is done of them is not done again."""
    rank = CHAIN if chain.sealed_in == MANIFEST else EVALUATE
    found = Due()
    able = desk.able(chain.stages)
    for unit, home in partition_homes(desk, chain).items():
        due = found.rank(desk, rank, unit, home, able)
        if due is None:
            continue
        assert isinstance(unit.part, Partition)
        p = unit.part.index
        before = desk.step.chain(chain, p, desk.header.id, desk.counts)
        inputs = tuple((f"{record.task.stage}.{name}", ref) for record in before for name, ref in record.outputs)
        reads = (desk.header.id, *(ref.id for record in before for ref in record.shards))
        params = desk.params(chain.models)
        work = ChainWork(desk.step.number, chain.stages[len(before) :], p, params, inputs)
        needs = tuple((ref, None) for _, ref in (*params, *inputs))
        found.here.append(Duty(due, unit, work, needs, reads))
    return found


@dataclass(frozen=True, slots=True)
class Batch:
    """What a manifest gives training: who trains on what, and by what the sum is divided."""

    manifest: Seal
    training: Training
    leaves: tuple[LeafGroups, ...]
    data: dict[int, tuple[tuple[int, str, ShardRef], ...]]  # partition -> (partition, "stage.output", shard)
    divisor: int
    samples: int

    @property
    def needed(self) -> frozenset[int]:
        return frozenset(leaf.leaf for leaf in self.leaves)


def make_batch(manifest: Seal, training: Training) -> Batch:
    groups: dict[int, Groups] = {}
    data: dict[int, list[tuple[int, str, ShardRef]]] = {}
    for record in manifest.entries:
        assert isinstance(record.task.part, Partition), "a manifest lists partitions (admission.py)"
        partition = record.task.part.index
        if record.task.stage == training.groups_from:
            groups[partition] = record.groups
        for name, ref in record.outputs:
            read = f"{record.task.stage}.{name}"
            if read in training.reads:
                data.setdefault(partition, []).append((partition, read, ref))
    ordered = tuple(groups.get(partition, ()) for partition in range(max(groups, default=-1) + 1))
    tokens = sum(tokens for partition in ordered for tokens, _ in partition)
    samples = sum(samples for partition in ordered for _, samples in partition)
    return Batch(
        manifest,
        training,
        cut_leaves(ordered, training.leaves) if tokens else (),
        {partition: tuple(read) for partition, read in data.items()},
        tokens if training.divisor == "tokens" else samples,
        samples,
    )


def gradient_cover(desk: Desk, batch: Batch) -> tuple[tuple[Block, Record], ...] | None:
    """A disjoint cover of all leaves by blocks whose records count, or None while leaves are missing."""
    inputs = (desk.header.id, batch.manifest.id)
    return cover(
        Block(0, batch.training.leaves),
        batch.needed,
        lambda block: desk.step.gradient(batch.training.stage, block, inputs, desk.counts),
    )


def leaf_homes(desk: Desk, batch: Batch) -> dict[int, NodeId | None]:
    """The leaves of which no block counts, and where each is to be done."""
    training, inputs = batch.training, (desk.header.id, batch.manifest.id)

    def is_covered(leaf: int) -> bool:
        size = 1
        while size <= training.leaves:
            first = leaf - leaf % size
            if desk.step.gradient(training.stage, Block(first, first + size), inputs, desk.counts):
                return True
            size *= 2
        return False

    missing = [leaf for leaf in range(training.leaves) if leaf in batch.needed and not is_covered(leaf)]
    able = desk.able((training.stage,))
    members = desk.dealt_to(desk.trainers, able)
    dealt = homes(range(training.leaves), members, able, missing, desk.capacity) if missing else {}
    units = {leaf: TaskKey(desk.step.number, training.stage, Block.of_leaf(leaf)) for leaf in missing}
    return {leaf: able_home(unit, dealt.get(leaf), desk.failures.nodes(unit), able) for leaf, unit in units.items()}


def block_duty(desk: Desk, batch: Batch, rank: int, block: Block) -> Duty:
    """An aligned block of leaves, to be summed by one slot."""
    leaves = tuple(leaf for leaf in batch.leaves if leaf.leaf in block.leaves)
    partitions = sorted({piece[0] for leaf in leaves for piece in leaf.pieces})
    inputs = tuple(entry for partition in partitions for entry in batch.data[partition])
    stage = batch.training.stage
    params = desk.params([batch.training.model])
    work = BlockWork(desk.step.number, stage, block.first, block.end, leaves, inputs, params)
    needs: list[tuple[ShardRef, Range | None]] = [(ref, None) for _, ref in params]
    needs += [(ref, None) for _, _, ref in inputs]
    unit = TaskKey(desk.step.number, stage, block)
    return Duty(rank, unit, work, tuple(needs), (desk.header.id, batch.manifest.id))


def gradient_slices(desk: Desk, batch: Batch) -> tuple[Slice, ...]:
    """The slices of the step's gradient; none if every group was dropped."""
    params = shards_of(desk.header.state, f"params:{batch.training.model}")
    return slices(total_bytes(params)) if batch.leaves else ()


def slice_records(desk: Desk, batch: Batch) -> tuple[Record | None, ...]:
    """Per slice, in order, the acceptable record that counts."""
    inputs = (desk.header.id, batch.manifest.id)
    return tuple(
        desk.step.gradient(batch.training.stage, chunks, inputs, desk.counts) for chunks in gradient_slices(desk, batch)
    )


def slice_duties(desk: Desk, batch: Batch) -> Due:
    """The slices that are due here, once a cover is known. They are dealt evenly, whatever slots a member has: what a
    slice takes is the network, and of that each host has one share."""
    stage, all_slices = batch.training.stage, gradient_slices(desk, batch)
    done = slice_records(desk, batch)
    missing = [chunks for chunks, record in zip(all_slices, done, strict=True) if record is None]
    cover_of_all, found = gradient_cover(desk, batch) if missing else None, Due()
    if cover_of_all is None:
        return found
    able = desk.able((stage,))
    dealt = homes(all_slices, desk.dealt_to(desk.trainers, able), able, missing)
    for chunks in missing:
        unit = TaskKey(desk.step.number, stage, chunks)
        due = found.rank(desk, SLICE, unit, dealt.get(chunks), able)
        if due is None:
            continue
        blocks = tuple(
            (block.first, block.end, pieces(record.shards, chunks.first, chunks.end)) for block, record in cover_of_all
        )
        leaves = batch.training.leaves
        work = SliceWork(desk.step.number, stage, chunks.first, chunks.end, leaves, blocks, batch.divisor)
        needs = tuple((ref, (low, high)) for _, _, parts in blocks for ref, low, high in parts)
        reads = (desk.header.id, batch.manifest.id)  # not the blocks: which there are depends on who took part
        found.here.append(Duty(due, unit, work, needs, reads))
    return found


def slice_pieces(desk: Desk, batch: Batch) -> list[tuple[ShardRef, Range]]:
    """What this node will need for the slices dealt to it, of the blocks that are done so far: to be brought while
    others are still at work."""
    borders = gradient_slices(desk, batch)
    able = desk.able((batch.training.stage,))
    dealt = deal(borders, [node for node in desk.dealt_to(desk.trainers, able) if node in able])
    done = zip(borders, slice_records(desk, batch), strict=True)
    mine = [chunks for chunks, record in done if record is None and dealt.get(chunks) == desk.me]
    inputs = (desk.header.id, batch.manifest.id)
    blocks = desk.step.blocks(batch.training.stage, inputs, desk.counts)
    return [
        (ref, (low, high))
        for record in blocks
        for chunks in mine
        for ref, low, high in pieces(record.shards, chunks.first, chunks.end)
    ]


def due_first(duties: Sequence[Duty], running: Collection[TaskKey]) -> list[Duty]:
    """In the order in which slots should take them, without what runs already."""
    return sorted((duty for duty in duties if duty.unit not in running), key=lambda duty: (duty.rank, _order(duty)))


def _order(duty: Duty) -> tuple[str, int]:
    """Parts in numerical order: p2 before p10."""
    match duty.unit.part:
        case Partition(index=first) | Block(first=first) | Slice(first=first):
            return duty.unit.stage, first
        case Once():
            return duty.unit.stage, 0
