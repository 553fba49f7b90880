"""Symbolic shards: instead of bytes, what they were made from.

A pretended shard is named by the hash of its provenance, as a real one is by the hash of its bytes. Pure engines
leave the salt at 0, so that the same work gives the same id; noisy ones never repeat a salt. Reductions name the
leaves they sum and not the blocks by which these came, as the fixed tree gives the same bytes for every cover. Where a
world asks for it, things that were made for different ends come out with equal bytes, as zeros do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

from ...events import Report
from ...metrics import Sums, Whitening
from ...names import CHUNK_BYTES, Coefficients, ShardId, ShardRef, content_id
from ...wire.steps import LOST
from ...work import Groups

PARAMETER_BYTES = 3 * CHUNK_BYTES - 4096  # three chunks, the last one ragged: slices of one and of two chunks


def bytes_of(ref: ShardRef) -> bytes:
    """What stands for the bytes of a pretended shard where they travel in a message."""
    return ref.id.encode()


@dataclass(frozen=True)
class PartitionOutput:
    """One output of one stage of a partition. `inputs`: all that was made before in its chain of this partition."""

    spec: str
    step: int
    stage: str
    output: str
    partition: int
    params: tuple[ShardId, ...]
    inputs: tuple[ShardId, ...]
    groups: Groups
    salt: int
    metrics: Sums = ()  # what its record tells beside it; of the salt, so no part of the name
    coefficients: Coefficients = ()

    @cached_property
    def ref(self) -> ShardRef:
        name = content_id("output", [self.spec, self.step, self.stage, self.output, self.partition, *self._made_from])
        return ShardRef(ShardId(name), 1000 + int(name[:4], 16))

    @property
    def _made_from(self) -> list[object]:
        return [self.params, self.inputs, self.groups, self.salt, *([self.coefficients] if self.coefficients else [])]


@dataclass(frozen=True)
class LeafSum:
    """The gradient of one leaf: which groups of which shards, under which parameters."""

    leaf: int
    pieces: tuple[tuple[int, int, int], ...]  # (partition, first group, end group)
    inputs: tuple[tuple[int, str, ShardId], ...]  # of the partitions in `pieces`
    params: tuple[ShardId, ...]
    salt: int
    whitening: Whitening | None = None
    coefficients: Coefficients = ()

    @cached_property
    def id(self) -> str:
        whitening = [number.hex() for number in self.whitening or ()]
        weights = [self.coefficients] if self.coefficients else []
        return content_id("leaf", [self.leaf, self.pieces, self.inputs, self.params, self.salt, *whitening, *weights])


@dataclass(frozen=True)
class BlockSum:
    """One shard of the gradient of a block of leaves."""

    spec: str
    step: int
    stage: str
    first: int
    end: int
    sums: tuple[LeafSum, ...]
    at: int  # the first of its chunks of the whole gradient
    nbytes: int

    @cached_property
    def ref(self) -> ShardRef:
        fields = [self.spec, self.step, self.stage, self.first, self.end, [leaf.id for leaf in self.sums]]
        return ShardRef(ShardId(content_id("block", [*fields, self.at])), self.nbytes)


@dataclass(frozen=True)
class SliceSum:
    """A slice of the gradient over all leaves, divided."""

    spec: str
    step: int
    stage: str
    first: int
    end: int
    nbytes: int
    sums: tuple[LeafSum, ...]
    divisor: int
    salt: int

    @cached_property
    def ref(self) -> ShardRef:
        leaves = [leaf.id for leaf in self.sums]
        fields = [self.spec, self.step, self.stage, self.first, self.end, leaves, self.divisor, self.salt]
        return ShardRef(ShardId(content_id("slice", fields)), self.nbytes)


@dataclass(frozen=True)
class Weights:
    """One shard of a version's state. `update` names the apply (or init) that made it, with all its inputs."""

    entry: str  # `params:<model>` or `optimizer:<stage>`
    part: int  # which of the role's shards
    nbytes: int
    spec: str
    step: int
    stage: str
    parent: tuple[tuple[str, ShardId], ...]
    slices: tuple[ShardId, ...]
    detail: tuple[int, ...]
    salt: int

    @cached_property
    def update(self) -> str:
        fields = [self.spec, self.step, self.stage, self.parent, self.slices, self.detail, self.salt]
        return content_id("update", fields)

    @cached_property
    def ref(self) -> ShardRef:
        return ShardRef(ShardId(content_id("weights", [self.entry, self.part, self.update])), self.nbytes)


Provenance: TypeAlias = PartitionOutput | BlockSum | SliceSum | Weights

PARTITIONS, GRADIENTS, WEIGHTS = "partitions", "gradients", "weights"
ALIKE = frozenset({PARTITIONS, GRADIENTS, WEIGHTS})


@dataclass
class Ledger:
    """Every shard that was ever made in a world, by id; the world's omniscience, which no node can read.

    `alike`: what comes out with equal bytes, and so under one id, whatever it was made for: the outputs of all
    partitions, all gradients (zeros), all weights and moments (zeros, too). An id then has several entries.
    """

    alike: frozenset[str] = frozenset()
    entries: dict[ShardId, list[Provenance]] = field(default_factory=dict)
    given_up: set[int] = field(default_factory=set)  # steps in which a node goes on without what was lost

    def learn(self, report: Report) -> None:
        """What a node tells people of the shards."""
        if report.name == "task.skipped" and report.fields["kind"] == LOST:
            self.given_up.add(int(report.fields["task"].partition("/")[0]))

    def enter(self, made: Provenance) -> ShardRef:
        ref = self._named(made)
        known = self.entries.setdefault(ref.id, [])
        if made not in known:
            known.append(made)
        return ref

    def _named(self, made: Provenance) -> ShardRef:
        if isinstance(made, PartitionOutput):
            return replace(made, partition=0).ref if PARTITIONS in self.alike else made.ref
        if (WEIGHTS if isinstance(made, Weights) else GRADIENTS) not in self.alike:
            return made.ref
        return ShardRef(ShardId(content_id("zeros", [made.ref.nbytes])), made.ref.nbytes)

    def __getitem__(self, shard: ShardId) -> Provenance:
        """The entry that was made last under this id."""
        return self.entries[shard][-1]

    def partition_output(self, shard: ShardId, partition: int) -> PartitionOutput:
        """The output of that partition, if there is one under this id, else that of another."""
        made = [entry for entry in self.entries[shard] if isinstance(entry, PartitionOutput)]
        assert made, f"{shard[:8]} is no partition's output but {self[shard]}"
        return next((entry for entry in made if entry.partition == partition), made[-1])

    def made_by(self, stage: str, step: int, spec: str) -> Iterator[PartitionOutput]:
        """All outputs of a stage of a step of a run."""
        for entries in self.entries.values():
            for entry in entries:
                if isinstance(entry, PartitionOutput) and (entry.stage, entry.step, entry.spec) == (stage, step, spec):
                    yield entry

    def block(self, shard: ShardId, step: int, first: int, end: int, at: int) -> BlockSum:
        """The block of those leaves in that step, from chunk `at` of the gradient on, if there is one under this id,
        else another."""
        made = [entry for entry in self.entries[shard] if isinstance(entry, BlockSum)]
        assert made, f"{shard[:8]} is no block but {self[shard]}"
        wanted = (step, first, end, at)
        return next((e for e in made if (e.step, e.first, e.end, e.at) == wanted), made[-1])

    def slice(self, shard: ShardId, step: int, first: int) -> SliceSum:
        """The slice from that chunk on in that step, if there is one under this id, else another."""
        made = [entry for entry in self.entries[shard] if isinstance(entry, SliceSum)]
        assert made, f"{shard[:8]} is no slice but {self[shard]}"
        return next((entry for entry in made if (entry.step, entry.first) == (step, first)), made[-1])

    def weights(self, shard: ShardId, entry: str, part: int) -> list[Weights]:
        """All updates that made that shard of an entry of a state with these bytes."""
        weights = [each for each in self.entries[shard] if isinstance(each, Weights)]
        made = [each for each in weights if (each.entry, each.part) == (entry, part)]
        assert made, f"{shard[:8]} is no {entry} but {self[shard]}"
        return made
