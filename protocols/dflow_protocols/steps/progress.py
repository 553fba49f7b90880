"""Progress: how far a step's partitions, leaves and slices are at one node, kept as its books and its shards' holders
change.

All of it is derived: which records count, which have too few holders, how far each partition's chain is. A partition is
derived again when one of its records came, or when somebody came to hold what such a record names or ceased to; all
are, when others live than before. So a reconcile costs as much as changed, not as much as there is.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass, field

from ..journal import UNREAD, Journal
from ..names import Block, NodeId, Partition, RecordId, Slice
from ..pipeline.plan import Chain
from ..shards.holdings import Holdings
from ..wire.steps import Record
from .step import Counts, Step


def kept_groups(records: Iterable[Record], counted: str) -> int:
    """Of how many groups these say that they are trained on; `counted`: the stage whose records do."""
    return sum(1 for record in records if record.task.stage == counted for tokens, _ in record.groups if tokens)


@dataclass(slots=True)
class ChainProgress:
    """Of one chain whose records read one of `sources`. `done`: by partition, the records that are accepted so far;
    `unfinished`: those in which stages are missing, ascending; `kept`: by round, the groups that are trained on, as far
    as it is known; `changed`: the partitions that were derived again."""

    chain: Chain
    sources: tuple[str, ...]
    done: list[tuple[Record, ...]] = field(default_factory=list)
    unfinished: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    changed: Journal[int] = field(default_factory=Journal)

    def take(self, partition: int, records: tuple[Record, ...]) -> None:
        """These are the accepted records of a partition now."""
        stages, rounds, before = len(self.chain.stages), self.chain.rounds, self.done[partition]
        was_whole, self.done[partition] = len(before) == stages, records
        if rounds.most > 1:
            kept, kept_before = (kept_groups(each, rounds.counted) for each in (records, before))
            self.kept[self.chain.round_of(partition)] += kept - kept_before
        if was_whole and len(records) < stages:
            insort(self.unfinished, partition)
        elif not was_whole and len(records) == stages:
            del self.unfinished[bisect_left(self.unfinished, partition)]
        self.changed.note(partition)


@dataclass(slots=True)
class Covered:
    """The leaves of one training that lie in blocks which count, if these read `inputs`. `leaves`: how many such blocks
    each lies in."""

    stage: str
    inputs: tuple[str, ...]
    blocks: set[Block] = field(default_factory=set)
    leaves: Counter[int] = field(default_factory=Counter)

    def take(self, block: Block, is_made: bool) -> None:
        """Whether a record of this block counts now."""
        if is_made and block not in self.blocks:
            self.blocks.add(block)
            self.leaves.update(block.leaves)
        elif not is_made and block in self.blocks:
            self.blocks.remove(block)
            self.leaves -= Counter(block.leaves)


class Reduced:
    """The slices of one training's gradient whose records read `inputs`. `made`: of each slice, in order, the record
    that counts."""

    def __init__(self, stage: str, inputs: tuple[str, ...], slices: tuple[Slice, ...]) -> None:
        self.stage, self.inputs, self.slices = stage, inputs, slices
        self.made: list[Record | None] = [None] * len(slices)
        self._places = {part: place for place, part in enumerate(slices)}

    def take(self, part: Slice, record: Record | None) -> None:
        """This is the record that counts now."""
        place = self._places.get(part)
        if place is not None:
            self.made[place] = record


class Progress:
    """Of one step at one node. `follow` brings it up to date. `lost`: records of partitions that do not count; `thin`:
    partitions of which some shard has holders beside this node, but too few."""

    def __init__(self) -> None:
        self.lost: set[RecordId] = set()
        self.thin: dict[Partition, None] = {}
        self._chains: dict[tuple[str, tuple[str, ...]], ChainProgress] = {}
        self._covered: dict[tuple[str, tuple[str, ...]], Covered] = {}
        self._reduced: dict[tuple[str, tuple[str, ...]], Reduced] = {}
        self._read = UNREAD, UNREAD  # of the books, of the holders
        self._living: frozenset[NodeId] = frozenset()
        self._copies = 0

    def follow(self, step: Step, holdings: Holdings, living: frozenset[NodeId], copies: int, counts: Counts) -> None:
        """Derive again what changed in the books or among the holders. `copies`: how many holders are enough;
        `counts`: whether a record does."""
        ends = step.changed.end, holdings.changed.end
        are_same = copies == self._copies and (living is self._living or living == self._living)
        if are_same and ends == self._read:
            return
        parts, shards = step.changed.since(self._read[0]), holdings.changed.since(self._read[1])
        self._read, self._living, self._copies = ends, living, copies
        if parts is None or shards is None or not are_same:
            self._begin_anew()
            parts, held = list(step.by_part), []
        else:
            held = [record.task.part for shard in shards for record in step.named_by.get(shard, {}).values()]
        fresh = {part for part in parts if isinstance(part, Partition)}
        for part in dict.fromkeys([*parts, *held]):
            if isinstance(part, Partition):
                self._derive(step, holdings, part, counts, part in fresh)
            elif isinstance(part, Block):
                for covered in self._covered.values():
                    covered.take(part, step.gradient(covered.stage, part, covered.inputs, counts) is not None)
            elif isinstance(part, Slice):
                for reduced in self._reduced.values():
                    reduced.take(part, step.gradient(reduced.stage, part, reduced.inputs, counts))

    def of(self, step: Step, chain: Chain, sources: tuple[str, ...], counts: Counts) -> ChainProgress:
        """How far a chain is, if its records read what is named so: versions, or parameters."""
        key = chain.stages[0], sources
        if key not in self._chains:
            partitions = range(chain.partitions)
            kept = [0] * chain.rounds.most
            self._chains[key] = ChainProgress(chain, sources, [()] * len(partitions), list(partitions), kept)
            for partition in partitions:
                if Partition(partition) in step.by_part:
                    self._chains[key].take(partition, step.chain(chain, partition, sources, counts))
        return self._chains[key]

    def leaves(self, step: Step, stage: str, inputs: tuple[str, ...], counts: Counts) -> Set[int]:
        """The leaves of a training that lie in a block which counts, if it read these."""
        if (stage, inputs) not in self._covered:
            covered = self._covered[stage, inputs] = Covered(stage, inputs)
            for part in step.by_part:
                if isinstance(part, Block):
                    covered.take(part, step.gradient(stage, part, inputs, counts) is not None)
        return self._covered[stage, inputs].leaves.keys()

    def slices(
        self, step: Step, stage: str, slices: tuple[Slice, ...], inputs: tuple[str, ...], counts: Counts
    ) -> tuple[Record | None, ...]:
        """Of each of these slices, which are all of a training's, the record that counts, if it read these."""
        if (stage, inputs) not in self._reduced:
            reduced = self._reduced[stage, inputs] = Reduced(stage, inputs, slices)
            for part in slices:
                reduced.take(part, step.gradient(stage, part, inputs, counts))
        return tuple(self._reduced[stage, inputs].made)

    def _begin_anew(self) -> None:
        self._chains.clear()
        self._covered.clear()
        self._reduced.clear()
        self.lost.clear()
        self.thin.clear()

    def _derive(self, step: Step, holdings: Holdings, part: Partition, counts: Counts, are_fresh: bool) -> None:
        """`are_fresh`: its records are not as they were; otherwise chains follow only if one of them counts no more,
        or again."""
        records = step.by_part.get(part, {}).values()
        lost = {record.id for record in records if not counts(record)}
        are_others = {record.id for record in records if record.id in self.lost} != lost
        self.lost.difference_update(record.id for record in records)
        self.lost |= lost
        self.thin.pop(part, None)
        if any(record.id not in step.mine and self._is_thin(holdings, record) for record in records):
            self.thin[part] = None
        if are_fresh or are_others:
            for found in self._chains.values():
                if part.index < found.chain.partitions:
                    chain = step.chain(found.chain, part.index, found.sources, lambda record: record.id not in lost)
                    found.take(part.index, chain)

    def _is_thin(self, holdings: Holdings, record: Record) -> bool:
        """Whether each of its shards has a holder beside this node, and one of them too few."""
        held = [holdings.count_others(ref.id, self._living) for ref in record.shards]
        return 0 < min(held, default=0) < self._copies
