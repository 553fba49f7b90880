"""One step's books, a replicated state that only grows: records, claims, seals, roster. Decides nothing.

Records merge by set union, claims by freshness, seals and rosters by their rules; any message about them may be lost,
doubled or late. What follows from the books is derived at every reconcile (duties.py, sealing.py); what is derived of
each partition is kept beside them (progress.py) and follows the journals of what changed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import inf

from ..journal import Journal
from ..names import Block, NodeId, Part, Partition, RecordId, SealId, ShardId, Slice, TaskKey, VersionId, content_id
from ..pipeline.plan import Chain
from ..wire.books import Page
from ..wire.steps import Record, Roster, Seal
from ..work import is_little
from .patience import Patience
from .roster import names_each_once, newer

MAX_PER_TASK = 64  # records of one task that others made: each is another execution with other bytes
MAX_SEALS = 64  # of one step, beside those that this node is settling
MAX_ROSTER_JUMP = 1_024  # generations that a node may have missed; one that is far ahead could never be outbid

Counts = Callable[[Record], bool]


def digest_of(records: Iterable[RecordId]) -> str:
    return content_id("records", sorted(records))


@dataclass
class Claim:
    """All that a node works on in a step, as far as it is known; `until` it is said again."""

    node: NodeId
    units: tuple[TaskKey, ...]
    until: float

    @cached_property
    def id(self) -> str:
        """Of who and what: it is the same when it is said again."""
        return content_id("claim", [self.node, sorted(map(str, self.units))])

    def renew(self, until: float) -> None:
        """It is said again."""
        self.until = until


@dataclass
class Step:
    """`books`: which of this node's they are, in the order in which it began them."""

    number: int
    books: int = 0
    roster: Roster | None = None
    records: dict[TaskKey, dict[RecordId, Record]] = field(default_factory=dict)
    by_id: dict[RecordId, Record] = field(default_factory=dict)  # the same
    by_part: dict[Part, dict[RecordId, Record]] = field(default_factory=dict)  # the same
    named_by: dict[ShardId, dict[RecordId, Record]] = field(default_factory=dict)  # the same, by what they name
    forgotten: int = 0  # how many there were too many
    came: dict[RecordId, int] = field(default_factory=dict, repr=False, compare=False)  # their places in this order
    read: dict[NodeId, Page] = field(
        default_factory=dict, repr=False, compare=False
    )  # of others' books: from the start
    changed: Journal[Part] = field(default_factory=Journal, repr=False, compare=False)  # whose records did
    mine: dict[RecordId, Record] = field(default_factory=dict)  # this node made them: it is their truth
    kept_back: dict[TaskKey, Record] = field(default_factory=dict)  # blocks of its slots, to be summed here first
    said_own: dict[NodeId, set[RecordId]] = field(default_factory=dict)  # by whom: others' own, as they say themselves
    claims: dict[TaskKey, dict[NodeId, float]] = field(default_factory=dict)  # until when
    by_claimant: dict[NodeId, Claim] = field(default_factory=dict)  # the same
    claims_changed: Journal[TaskKey] = field(default_factory=Journal, repr=False, compare=False)  # of which units
    first_hand: dict[NodeId, float] = field(default_factory=dict)  # until when a node's own word about claims counts
    seals: dict[SealId, Seal] = field(default_factory=dict)
    sealed: set[RecordId] = field(default_factory=set)  # that these seals name
    settled: set[SealId] = field(default_factory=set)
    passed_on: set[SealId] = field(default_factory=set)  # of these, to whom the sender named
    acks: dict[SealId, set[NodeId]] = field(default_factory=dict)  # of seals that this node is settling
    patience: Patience = field(default_factory=Patience)
    opened_at: float | None = None
    carried_to: VersionId | None = None  # for which version what the step before was trained on is in these books
    carried_rounds: Mapping[str, int] = field(default_factory=dict)  # of that, by a chain's first stage
    polled_at: float = -inf  # when this node last asked a replica for all that its books say
    _records_known: tuple[int, str] = (-1, "")  # the place in the journal, and the digest there
    _claims_known: tuple[int, float, str] = (-1, -inf, "")  # the same, and until when none of these claims ends

    def polled(self, now: float) -> None:
        self.polled_at = now

    @property
    def was_polled(self) -> bool:
        """Whether this node has asked a replica for all that its books say."""
        return self.polled_at > -inf

    def open(self, now: float) -> None:
        """This node begins the step, if it has not yet."""
        if self.opened_at is None:
            self.opened_at = now

    def carry(self, version: VersionId, rounds: Mapping[str, int]) -> None:
        """What the step before was trained on is in these books, as records of this step from this version. `rounds`:
        how many there were, by a chain's first stage."""
        self.carried_to, self.carried_rounds = version, rounds

    def keep_back(self, records: Iterable[Record]) -> None:
        """Blocks that the node's slots made: nobody hears of them before they are summed."""
        self.kept_back.update({record.task: record for record in records})

    def add(self, record: Record, own: bool = False) -> bool:
        """Union. True if it was new. Where there are too many the oldest of others goes: what is true is said again,
        so a member that floods a task holds it up no longer than it goes on."""
        known = self.records.setdefault(record.task, {})
        if own and record.id not in self.mine:
            self.mine[record.id] = record
            self.changed.note(record.task.part)
        if record.id in known:
            return False
        known[record.id] = self.by_id[record.id] = record
        self.came[record.id] = self.count
        self.by_part.setdefault(record.task.part, {})[record.id] = record
        for ref in record.shards:
            self.named_by.setdefault(ref.id, {})[record.id] = record
        if len(known) > MAX_PER_TASK:
            self._forget_oldest(known)
        self.changed.note(record.task.part)
        return True

    def _forget_oldest(self, known: dict[RecordId, Record]) -> None:
        """Of a task's records that others made, if they are too many. What a seal names stays: as long as that is kept
        it matters whether the record counts."""
        others = [name for name in known if name not in self.mine and name not in self.sealed]
        if len(others) > MAX_PER_TASK:
            oldest = known.pop(others[0])
            del self.by_id[oldest.id], self.came[oldest.id], self.by_part[oldest.task.part][oldest.id]
            for shard in dict.fromkeys(ref.id for ref in oldest.shards):
                del self.named_by[shard][oldest.id]
                if not self.named_by[shard]:
                    del self.named_by[shard]
            self.forgotten += 1
            self.read.clear()  # it may have been true: others' books are read from the start again

    def keep(self, seal: Seal) -> None:
        """A seal's bytes, and the records that it names. Where there are too many the oldest goes, as with records."""
        self.seals[seal.id] = seal
        spare = [name for name in self.seals if name not in self.acks and name != seal.id]
        if len(spare) >= MAX_SEALS:
            del self.seals[spare[0]]
            self.settled.discard(spare[0])
            self.sealed = {record.id for other in self.seals.values() for record in other.entries}
        self.sealed.update(record.id for record in seal.entries)
        for record in seal.entries:
            self.add(record)

    def settled_of(self, kind: str) -> list[Seal]:
        """Its settled seals of a kind."""
        return [seal for name, seal in self.seals.items() if name in self.settled and seal.kind == kind]

    def passes_on(self, seal: SealId) -> bool:
        """Whether this node has not passed a settled seal on yet; it is about to. One that was told twice is not."""
        is_first = seal not in self.passed_on
        self.passed_on = {other for other in self.passed_on if other in self.seals} | {seal}
        return is_first

    def begin_to_settle(self, seal: Seal, me: NodeId) -> None:
        """This node has the replicas keep a seal from now on, and is the first to keep it."""
        self.keep(seal)
        self.acks[seal.id] = {me}

    def let_go(self, tasks: Iterable[TaskKey]) -> None:
        """Blocks of slots that need not be kept back any longer."""
        for task in tasks:
            del self.kept_back[task]

    def forget_own(self, node: NodeId) -> None:
        """What a node said to have made holds no longer."""
        self.said_own.pop(node, None)

    def learn_own(self, node: NodeId, ids: Iterable[RecordId]) -> list[Record]:
        """`node` says that it made these and holds their outputs. Gives those of them that are in the books."""
        found = [self.by_id[name] for name in dict.fromkeys(ids) if name in self.by_id]
        if found:
            self.said_own.setdefault(node, set()).update(record.id for record in found)
        return found

    def is_heavy(self, stages: Iterable[str], part: Part) -> bool:
        """Whether a record of this part by one of these stages names more than goes along with records."""
        known = (self.records.get(TaskKey(self.number, stage, part), {}) for stage in stages)
        return not all(is_little(record.shards) for records in known for record in records.values())

    def all_records(self) -> list[Record]:
        return list(self.by_id.values())

    @property
    def count(self) -> int:
        """How many records came so far; some may be forgotten since."""
        return next(reversed(self.came.values()), -1) + 1

    def came_from(self, place: int) -> list[Record]:
        """The records that came as the `place`-th or later, in their order."""
        found = []
        for name, at in reversed(self.came.items()):
            if at < place:
                break
            found.append(self.by_id[name])
        return found[::-1]

    def learn_page(self, node: NodeId, page: Page) -> None:
        """All that this page of a node's books says is known here. It counts only after all pages before it: any may
        be lost."""
        known = self.read.get(node)
        end = known.end if known is not None and known.books == page.books else 0
        if page.first <= end:
            self.read[node] = Page(page.books, 0, max(end, page.end))

    def find(self, task: TaskKey, inputs: tuple[str, ...], counts: Counts) -> Record | None:
        """The acceptable record of a task whose inputs begin so: the smallest id counts."""
        fits = [
            record
            for record in self.records.get(task, {}).values()
            if record.inputs[: len(inputs)] == inputs and counts(record)
        ]
        return min(fits, key=lambda record: record.id, default=None)

    def chain(self, chain: Chain, partition: int, sources: tuple[str, ...], counts: Counts) -> tuple[Record, ...]:
        """The accepted records of a partition's chain, linked by the ids of what they read: one of `sources`, and all
        that was made before. The longest run of stages that is done, and among equally long ones the one with the
        smaller ids first."""

        def grow(read: tuple[str, ...], depth: int) -> tuple[Record, ...]:
            if depth == len(chain.stages):
                return ()
            task = TaskKey(self.number, chain.stages[depth], Partition(partition))
            best: tuple[Record, ...] = ()
            for record in sorted(self.records.get(task, {}).values(), key=lambda record: record.id):
                if record.inputs[:1] not in first or record.inputs[1:] != read or not counts(record):
                    continue
                run = (record, *grow(read + tuple(ref.id for ref in record.shards), depth + 1))
                if len(run) > len(best):
                    best = run
                if depth + len(best) == len(chain.stages):
                    break
            return best

        first = {(source,) for source in sources}
        return grow((), 0)

    def gradient(self, stage: str, part: Block | Slice, inputs: tuple[str, ...], counts: Counts) -> Record | None:
        """The acceptable record of a block or a slice."""
        return self.find(TaskKey(self.number, stage, part), inputs, counts)

    def blocks(self, stage: str, inputs: tuple[str, ...], counts: Counts) -> list[Record]:
        """The acceptable record of every block that has one."""
        tasks = sorted(task for task in self.records if task.stage == stage and isinstance(task.part, Block))
        return [record for task in tasks if (record := self.find(task, inputs, counts)) is not None]

    def claim(self, now: float, node: NodeId, units: Iterable[TaskKey], until: float) -> bool:
        """`node` says that it works on exactly these units of the step now. True if that is new."""
        self.first_hand[node], before = until, self.claims_changed.end
        self._set_claims(now, node, units, until)
        return self.claims_changed.end != before

    def learn_claim(self, now: float, node: NodeId, units: Iterable[TaskKey], until: float) -> None:
        """Others say so of `node`: counts only while it says nothing itself, and is not told on, or it never ended."""
        if self.first_hand.get(node, 0.0) <= now:
            self._set_claims(now, node, units, until)

    def _set_claims(self, now: float, node: NodeId, units: Iterable[TaskKey], until: float) -> None:
        """A claim that is only renewed is nothing new."""
        claimed, known = dict.fromkeys(units), self.by_claimant.get(node)
        if known is not None and known.units == tuple(claimed) and now < known.until <= until:
            known.renew(until)
            for unit in claimed:
                self.claims[unit][node] = until
            return
        self._unclaim(node, lambda unit: unit not in claimed)
        for unit in claimed:
            holders = self.claims.setdefault(unit, {})
            if not now < holders.get(node, now) <= until:
                self.claims_changed.note(unit)
            holders[node] = until
        if claimed:
            self.by_claimant[node] = Claim(node, tuple(claimed), until)

    def first_hand_claims(self, now: float) -> list[tuple[TaskKey, NodeId]]:
        return [
            (unit, node)
            for unit in sorted(self.claims)
            for node in self.claimants(now, unit)
            if self.first_hand.get(node, 0.0) > now
        ]

    def claimed_by(self, now: float, node: NodeId) -> set[TaskKey]:
        """What a node claims now."""
        claim = self.by_claimant.get(node)
        return set(claim.units) if claim is not None and claim.until > now else set()

    def learn_failed(self, node: NodeId, task: TaskKey) -> None:
        """`node` failed at a task, so it is not at work on it: its claim must not keep others waiting."""
        self._unclaim(node, lambda unit: task.holds(unit) or unit.holds(task))

    def _unclaim(self, node: NodeId, which: Callable[[TaskKey], bool] = lambda unit: True) -> None:
        claim = self.by_claimant.pop(node, None)
        if claim is None:
            return
        left = tuple(unit for unit in claim.units if not which(unit))
        if left:
            self.by_claimant[node] = Claim(node, left, claim.until)
        for unit in dict.fromkeys(claim.units):
            if which(unit):
                del self.claims[unit][node]
                self.claims_changed.note(unit)
                if not self.claims[unit]:
                    del self.claims[unit]

    def at_work(self, now: float) -> frozenset[NodeId]:
        """Nodes with a living claim of anything in this step."""
        return frozenset(node for node, claim in self.by_claimant.items() if claim.until > now)

    def claimants(self, now: float, unit: TaskKey) -> tuple[NodeId, ...]:
        return tuple(node for node, until in sorted(self.claims.get(unit, {}).items()) if until > now)

    def take_roster(self, roster: Roster) -> bool:
        """Merge a roster. True if it changed the step's."""
        generation = self.roster.generation if self.roster is not None else 0
        if roster.generation > generation + MAX_ROSTER_JUMP or not names_each_once(roster):
            return False
        before, self.roster = self.roster, newer(self.roster, roster)
        return self.roster != before

    def settled_digest(self) -> str:
        """Of the seals that are acted on, and the roster: who has the same needs no answer."""
        return content_id("settled", [sorted(self.settled), self.roster.id if self.roster else ""])

    def claims_digest(self, now: float) -> str:
        """The same of who works on what now, whoever said so: derived again when that changes, or a claim may end."""
        place, until, digest = self._claims_known
        if place != self.claims_changed.end or now >= until:
            living = [claim for claim in self.by_claimant.values() if claim.until > now]
            until = min((claim.until for claim in living), default=inf)
            digest = content_id("claims", sorted(claim.id for claim in living))
            self._claims_known = self.claims_changed.end, until, digest
        return digest

    def records_digest(self) -> str:
        """The same of all records: derived again when there are others."""
        if self._records_known[0] != self.changed.end:
            self._records_known = self.changed.end, digest_of(self.by_id)
        return self._records_known[1]

    def forget(self, node: NodeId) -> None:
        self._unclaim(node)
        self.first_hand.pop(node, None)
        self.said_own.pop(node, None)
        self.read.pop(node, None)
        for acks in self.acks.values():
            acks.discard(node)
