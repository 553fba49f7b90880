"""Work: what a node asks of its slot, and what comes back.

The protocols only name shards; an engine (a torch child in the daemon, a pretended one in the simulator) turns
them into new ones. Every input of a work is a shard that lies whole (or, for `SliceWork`, in the chunks named) in
the local store when the work starts, so a work never waits for the network.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, Literal, TypeAlias, assert_never

from .metrics import Whitening
from .names import Block, Coefficients, RunId, ShardId, ShardRef, VersionId, chunk_count
from .pipeline.spec import Pipeline
from .ranges import RANGE_BYTES, Piece, State
from .wire.books import MOST_SHORT, MOST_SHORT_BYTES
from .wire.steps import Header

Groups: TypeAlias = tuple[tuple[int, int], ...]
"""Per group of a partition, in order: (trained tokens, trained samples); (0, 0) for a group that was dropped."""


class Origin(StrEnum):
    """How a task came to the node that runs it."""

    DEALT = "dealt"  # to it, by the step's roster; or to nobody in particular, as making a version is
    STOLEN = "stolen"  # by it from another one, when it was idle
    AGAIN = "again"  # from a member that was dealt it and is dead, silent or failed at it


class Product(IntEnum):
    """What of a step a shard is, in the order in which they are given room: what ends the step comes before what it is
    made of, or a store full of blocks would leave none for their sum. What is cheap to make again comes last."""

    STATE = 0  # part of a version: it never gives way
    SLICE = 1  # of the gradient, or of an update
    OUTPUT = 2  # of a chain's stages
    BLOCK = 3  # gradients of leaves, summed


@dataclass(frozen=True, slots=True)
class ChainWork:
    """Run stages of one partition one after the other, on one engine. Result: one Made a stage."""

    step: int
    stages: tuple[str, ...]
    partition: int
    state: State  # the `base:` and `params:` entries that the stages read; optimizer state is not among them
    inputs: tuple[tuple[str, ShardRef], ...] = ()  # "stage.output" -> shard, of stages of this partition done before
    at_once: int = 1  # partitions of the run that one slot may work on together, this one among them
    version: int | None = None  # the number of the version that `state` is of, where rollouts may be of any of several
    coefficients: Coefficients = ()  # of the stages, as that version has them


@dataclass(frozen=True, slots=True)
class LeafGroups:
    """What one leaf trains on: a run of kept groups, as pieces of partitions, in (partition, group) order."""

    leaf: int
    pieces: tuple[tuple[int, int, int], ...]  # (partition, first group, end group)


@dataclass(frozen=True, slots=True)
class BlockWork:
    """Sum the gradients of the aligned block of leaves [first, end) by the fixed tree.

    Result: one Made with outputs `gradient`: [parameters] in the dtype that the stage's `gradient` says, not yet
    divided, in shards cut at the same elements as those of the parameters. An empty leaf adds nothing. A block that was
    trimmed gives one Made for each aligned block of what it did, with that block as its `block`.
    """

    step: int
    stage: str
    first: int
    end: int
    leaves: tuple[LeafGroups, ...]  # those of [first, end) that have groups
    inputs: tuple[tuple[int, str, ShardRef], ...]  # (partition, "stage.output", shard) of every partition named
    state: State  # the `base:` and `params:` entries of the stage's model
    whitening: Whitening | None = None  # of the advantages, by the whole step's; None: they are taken as they are
    coefficients: Coefficients = ()  # of the stage, as the version has them


@dataclass(frozen=True, slots=True)
class SumWork:
    """Sum the aligned block of leaves [first, end) from blocks of it that this node's slots made, by the fixed tree.

    `cover`: disjoint aligned blocks in leaf order, with their gradient's shards; leaves in none add nothing. Result:
    one Made with outputs `gradient`, the bytes that one `BlockWork` over all of the leaves would give.
    """

    step: int
    stage: str
    first: int
    end: int
    cover: tuple[tuple[int, int, tuple[ShardRef, ...]], ...]
    metrics: tuple[tuple[str, float], ...]  # of all blocks of the cover together, and so of the result


@dataclass(frozen=True, slots=True)
class SliceWork:
    """Finish the tree for the chunks [first, end) of the gradient as blocks have it, and divide.

    `cover`: disjoint aligned blocks in leaf order that cover all leaves, each with the pieces of its gradient's shards
    that these chunks are, which alone are local. Result: one Made with output `slice`: the elements of those
    chunks as float32.
    """

    step: int
    stage: str
    first: int
    end: int
    leaves: int
    cover: tuple[tuple[int, int, tuple[Piece, ...]], ...]
    divisor: int


@dataclass(frozen=True, slots=True)
class ApplyWork:
    """One optimizer update, whole and local: v and all slices in, v+1 out, nothing in between.

    Result: outputs are the entries of the new state; metrics hold `grad_norm` and `learning_rate`.
    """

    step: int
    stage: str
    state: State
    slices: tuple[ShardRef, ...]  # in chunk order; together the whole gradient
    update: int  # how many updates this stage made before
    updates: int  # how many it makes in the whole run
    keep_optimizer: bool  # whether the stage is active again later


@dataclass(frozen=True, slots=True)
class InitWork:
    """Version 0: a function of config and seed. Outputs: the `params:` entries of all trainable models, cut after each
    `range_bytes`, which are whole chunks, and the `base:` entries of those that have adapters."""

    range_bytes: int = RANGE_BYTES


@dataclass(frozen=True, slots=True)
class SaveWork:
    """Write a version, whole, as a Hugging Face checkpoint folder. No outputs; `detail` is the folder's path."""

    run: RunId
    header: Header

    @property
    def step(self) -> int:
        return self.header.step

    @property
    def version(self) -> VersionId:
        return self.header.id

    @property
    def state(self) -> State:
        return self.header.state


@dataclass(frozen=True, slots=True)
class LoadWork:
    """Bring a saved version back from this node's disk. Outputs: the entries of its state, with the ids of the header.

    Fails with kind `damaged` where the folder does not hold what it says.
    """

    run: RunId
    header: Header


Work: TypeAlias = ChainWork | BlockWork | SumWork | SliceWork | ApplyWork | InitWork | SaveWork | LoadWork


def engine_of(pipeline: Pipeline, work: Work) -> str:
    """The engine that does a work: a stage's own for rollouts and gradients. A version's state is the pipeline's."""
    match work:
        case ChainWork():
            return pipeline.engine_of(work.stages[0])
        case BlockWork():
            return pipeline.engine_of(work.stage)
        case _:
            return pipeline.engine


def at_once(work: Work) -> int:
    """How many works like this one slot may do together."""
    return work.at_once if isinstance(work, ChainWork) else 1


def needs_device(pipeline: Pipeline, work: Work) -> bool:
    """Whether it passes through a model."""
    if isinstance(work, ChainWork):
        return any(pipeline.stage(name).model is not None for name in work.stages)
    return isinstance(work, BlockWork)


def is_host_work(work: Work) -> bool:
    """Whether it is done on shards alone: it needs neither a model nor the device that holds one."""
    return isinstance(work, SumWork | SliceWork | ApplyWork | LoadWork)


def made_by(work: Work) -> Product:
    """What it makes."""
    match work:
        case InitWork() | ApplyWork() | LoadWork():
            return Product.STATE
        case SliceWork():
            return Product.SLICE
        case BlockWork() | SumWork():
            return Product.BLOCK
        case ChainWork() | SaveWork():
            return Product.OUTPUT
    assert_never(work)


def read_by(work: Work) -> Product:
    """What it reads, beside a version's state."""
    match work:
        case ApplyWork():
            return Product.SLICE
        case SliceWork() | SumWork():
            return Product.BLOCK
        case _:
            return Product.OUTPUT


def inputs_of(work: Work) -> tuple[Piece, ...]:
    """What must lie here before a work starts, each once, in the work's order."""
    match work:
        case ChainWork():
            refs = [*(ref for _, ref in work.state), *(ref for _, ref in work.inputs)]
        case BlockWork():
            refs = [*(ref for _, ref in work.state), *(ref for _, _, ref in work.inputs)]
        case SumWork():
            refs = [ref for _, _, refs in work.cover for ref in refs]
        case SliceWork():
            return tuple(dict.fromkeys(piece for _, _, parts in work.cover for piece in parts))
        case ApplyWork():
            refs = [*(ref for _, ref in work.state), *work.slices]
        case InitWork() | LoadWork():
            refs = []
        case SaveWork():
            refs = [ref for _, ref in work.state]
    return tuple((ref, 0, chunk_count(ref.nbytes)) for ref in dict.fromkeys(refs))


@dataclass(frozen=True, slots=True)
class Made:
    """What one stage of a work made. `metrics` are functions of the outputs: sums, or maxima if named `*_max`."""

    stage: str
    outputs: tuple[tuple[str, ShardRef], ...]
    metrics: tuple[tuple[str, float], ...] = ()
    groups: Groups = ()
    seconds: float = 0.0  # of a slot that it took; beside the record, never in it, as is `note`
    block: Block | None = None  # of a trimmed block: which of its blocks this is
    note: str = ""  # the first failure that cost an answer its score


@dataclass(frozen=True, slots=True)
class Done:
    """A finished work: one Made a stage, in order."""

    made: tuple[Made, ...]
    samples: tuple[dict[str, Any], ...] = ()  # a few {prompt, completion, reward} for people to read
    detail: str = ""
    short: tuple[tuple[ShardId, bytes], ...] = ()  # bytes of what it made, where that is little: `is_short`


def is_little(made: Collection[ShardRef]) -> bool:
    """Whether these are so few and short that they go along with records."""
    return len(made) <= MOST_SHORT and sum(ref.nbytes for ref in made) <= MOST_SHORT_BYTES


def is_short(work: Work, made: Collection[ShardRef]) -> bool:
    """Whether all that a work on a partition made is so little that it goes along with its records."""
    return isinstance(work, ChainWork) and is_little(made)


FailureKind: TypeAlias = Literal[
    "engine", "user", "host", "lost", "full", "large", "damaged", "disk", "stopped"
]  # what each means: `Failed`


@dataclass(frozen=True, slots=True)
class Failed:
    """A work that gave nothing.

    kind: `engine` (the child died, hung or ran out of memory), `user` (user code or data raised), `host` (this host can
    do no work of this run), `lost` (an input shard vanished), `full` (no room for an output now), `large` (no room on
    this node even if it held nothing else), `damaged` (a checkpoint does not hold what it says), `disk` (a checkpoint
    found no room on disk), `stopped` (it was given up, its slot lost its device, or the child died of another call:
    nobody's fault, and nobody is told).
    """

    kind: FailureKind
    error: str
    blame: str = ""  # the stage at fault, or the lost shard's id
