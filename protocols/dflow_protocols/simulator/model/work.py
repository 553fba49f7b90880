"""Pretended engines: a work in, after a drawn while its symbolic shards out.

A pure engine gives the same ids for the same work, wherever and how often it runs; a noisy one gives other ids each
time, as sampling on unlike hardware does. Where hosts are of several classes of numerics, those of one class agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import count
from random import Random

from ...metrics import (
    REFERENCE_KL_COUNT,
    REFERENCE_KL_SAMPLES,
    REFERENCE_KL_SUM,
    WHITENED_COUNT,
    WHITENED_SQ_SUM,
    WHITENED_SUM,
    Sums,
)
from ...names import CHUNK_BYTES, Partition, ShardRef, TaskKey, chunk_count
from ...pipeline.grammar.signatures import gradient_bytes
from ...pipeline.plan import StepPlan, partition_groups, plan
from ...pipeline.spec import Pipeline
from ...pipeline.weighing import adaptive
from ...ranges import BASE_BYTES, FLOAT_BYTES, State, cut, gradient_sizes, in_order, shards_of
from ...steps.reduction import aligned_blocks
from ...work import (
    ApplyWork,
    BlockWork,
    ChainWork,
    Done,
    Groups,
    InitWork,
    LoadWork,
    Made,
    SaveWork,
    SliceWork,
    SumWork,
    Work,
)
from . import provenance
from .provenance import BlockSum, LeafSum, Ledger, PartitionOutput, SliceSum, Weights

PURE: frozenset[type] = frozenset()
NOISY: frozenset[type] = frozenset({ChainWork, BlockWork, SliceWork})  # sampling and summing differ, the update not
WILD: frozenset[type] = NOISY | {ApplyWork}  # hosts unlike each other: no two make the same version

SECONDS = {
    ChainWork: 0.2,
    BlockWork: 0.06,
    SumWork: 0.01,
    SliceWork: 0.01,
    ApplyWork: 0.05,
    InitWork: 0.05,
    SaveWork: 0.1,
    LoadWork: 0.1,
}
STRAGGLER_SHARE = 0.04  # of works that take STRAGGLER_FACTOR as long: a long tail, a busy host
STRAGGLER_FACTOR = 5.0

DROPPED_SHARE = 0.2  # of groups: all its samples got one reward, so there is nothing to learn from


class Engines:
    """What all slots of a world can do with one pipeline. Knows no node and no clock."""

    def __init__(
        self, ledger: Ledger, pipeline: Pipeline, noise: frozenset[type], rng: Random, classes: int = 1
    ) -> None:
        """`classes`: of numerics, that hosts are of."""
        self.ledger = ledger
        self.pipeline = pipeline
        self._spec = str(pipeline.id)
        self._noise = noise
        self._classes = classes
        self._rng = rng
        self._salts: Iterator[int] = count(1)
        self._plans: dict[int, StepPlan] = {}

    @property
    def is_pure(self) -> bool:
        """Whether the same run gives the same shards, wherever and how often works of it run."""
        return not self._noise and self._classes == 1 and not self.pipeline.max_staleness

    def plan(self, step: int) -> StepPlan:
        if step not in self._plans:
            self._plans[step] = plan(self.pipeline, step)
        return self._plans[step]

    def first(self, step: int) -> int:
        """The number of the version that the pipeline's step began with: what is sampled is the same for all of it."""
        return self.pipeline.schedule.place(step).first

    def done_first(self, unit: TaskKey) -> TaskKey:
        """The task of which this one gives once more what serves all updates of the pipeline's step; else itself."""
        return replace(unit, step=self.first(unit.step)) if isinstance(unit.part, Partition) else unit

    def seconds(self, work: Work) -> float:
        """How long this execution takes, drawn afresh each time."""
        base = SECONDS[type(work)]
        if isinstance(work, BlockWork):
            base *= max(1, len(work.leaves))
        if self._rng.random() < STRAGGLER_SHARE:
            base *= STRAGGLER_FACTOR
        return base * self._rng.uniform(0.6, 1.6)

    def run(self, work: Work, end: int | None = None, numerics: int = 0) -> Done:
        """`end`: where a block that was trimmed stopped. `numerics`: the class of who runs it."""
        salt = next(self._salts) if type(work) in self._noise else numerics if type(work) in WILD else 0
        makers: dict[type, Callable[..., Done]] = {
            ChainWork: self._chain,
            BlockWork: self._block,
            SumWork: self._sum,
            SliceWork: self._slice,
            ApplyWork: self._apply,
            InitWork: self._init,
            SaveWork: self._save,
            LoadWork: self._load,
        }
        if isinstance(work, BlockWork) and end is not None and end < work.end:
            return self._trimmed(work, end, salt)
        return makers[type(work)](work, salt)

    # One method a kind of work ---------------------------------------------------------------------------------

    def _chain(self, work: ChainWork, salt: int) -> Done:
        params = tuple(ref.id for name, ref in work.state if name.startswith("params:"))
        before, first = [ref.id for _, ref in work.inputs], self.first(work.step)
        made: list[Made] = []
        for stage in work.stages:
            outputs: list[tuple[str, ShardRef]] = []
            groups = self._groups(work, stage, salt)
            metrics = self._metrics(stage, work, salt, groups)
            for output in self.outputs(stage):
                weights = tuple(each for each in work.coefficients if each[0] == stage)
                fields = (output, work.partition, params, tuple(before), groups, salt, metrics, weights)
                entry = PartitionOutput(self._spec, first, stage, *fields)
                outputs.append((output, self.ledger.enter(entry)))
            before += [ref.id for _, ref in outputs]
            made.append(Made(stage, tuple(outputs), metrics, groups, 0.1))
        return Done(tuple(made))

    def outputs(self, stage: str) -> tuple[str, ...]:
        """Names of what a stage writes."""
        return tuple(self.pipeline.stage(stage).writes)

    def _metrics(self, stage: str, work: ChainWork, salt: int, groups: Groups) -> Sums:
        if self.pipeline.stage(stage).config.get("whiten"):
            tokens = float(sum(count for count, _ in groups))
            mean = Random(f"{stage}/{work.step}/{work.partition}/{salt}").uniform(-1, 1)
            return (
                (WHITENED_COUNT, tokens),
                (WHITENED_SQ_SUM, tokens * (mean * mean + 1)),
                (WHITENED_SUM, tokens * mean),
            )
        if any(each.measured == stage for each in adaptive(self.pipeline)):
            apart = Random(f"{stage}/{self.first(work.step)}/{work.partition}/{salt}").uniform(0, 20)
            return ((REFERENCE_KL_COUNT, 100.0), (REFERENCE_KL_SAMPLES, 12.0), (REFERENCE_KL_SUM, apart))
        if self.pipeline.stage(stage).operator.evaluates:
            correct = Random(f"{stage}/{self.first(work.step)}/{work.partition}/{salt}").randrange(5)
            return (("correct", float(correct)), ("evaluated", 4.0))
        return (("samples", 4.0),)

    def _groups(self, work: ChainWork, stage: str, salt: int) -> Groups:
        """Which groups training may read, where this stage decides that."""
        chain = next(c for c in self.plan(work.step).chains if stage in c.stages)
        if stage not in chain.counted:
            return ()
        first, end = partition_groups(chain, work.partition)
        rng = Random(f"{self._spec}/{self.first(work.step)}/{stage}/{work.partition}/{salt}")
        return tuple((0, 0) if rng.random() < DROPPED_SHARE else (rng.randint(8, 64), 4) for _ in range(first, end))

    def _block(self, work: BlockWork, salt: int) -> Done:
        params = tuple(ref.id for name, ref in work.state if name.startswith("params:"))
        sums = []
        for leaf in work.leaves:
            partitions = {partition for partition, _, _ in leaf.pieces}
            inputs = tuple((p, name, ref.id) for p, name, ref in work.inputs if p in partitions)
            sums.append(LeafSum(leaf.leaf, leaf.pieces, inputs, params, salt, work.whitening, work.coefficients))
        params_of = [ref for name, ref in work.state if name.startswith("params:")]
        sizes = gradient_sizes(params_of, gradient_bytes(self.pipeline.stage(work.stage).config))
        outputs = self._gradient(work, tuple(sums), sizes)
        return Done((Made(work.stage, outputs, (("loss_sum", 1.0),), (), 0.1),))

    def _gradient(
        self, work: BlockWork | SumWork, sums: tuple[LeafSum, ...], sizes: Iterable[int]
    ) -> tuple[tuple[str, ShardRef], ...]:
        """A block's outputs, of these lengths."""
        outputs, at = [], 0
        for nbytes in sizes:
            block = BlockSum(self._spec, work.step, work.stage, work.first, work.end, sums, at, nbytes)
            outputs.append(("gradient", self.ledger.enter(block)))
            at += chunk_count(nbytes)
        return tuple(outputs)

    def _trimmed(self, work: BlockWork, end: int, salt: int) -> Done:
        """The aligned blocks of [first, end), one Made each."""
        made = []
        for block in aligned_blocks(range(work.first, end)):
            leaves = tuple(leaf for leaf in work.leaves if leaf.leaf in block.leaves)
            (one,) = self._block(replace(work, first=block.first, end=block.end, leaves=leaves), salt).made
            made.append(replace(one, block=block))
        return Done(tuple(made))

    def _sum(self, work: SumWork, salt: int) -> Done:
        blocks = [self.ledger.block(refs[0].id, work.step, first, end, 0) for first, end, refs in work.cover]
        sums = tuple(leaf for block in blocks for leaf in block.sums)
        outputs = self._gradient(work, sums, [ref.nbytes for ref in work.cover[0][2]])
        return Done((Made(work.stage, outputs, work.metrics, (), 0.01),))

    def _slice(self, work: SliceWork, salt: int) -> Done:
        blocks = [
            self.ledger.block(parts[0][0].id, work.step, first, end, work.first - parts[0][1])
            for first, end, parts in work.cover
        ]
        sums = tuple(leaf for block in blocks for leaf in block.sums)
        pieces = work.cover[0][2]
        stored = sum(min(end * CHUNK_BYTES, ref.nbytes) - first * CHUNK_BYTES for ref, first, end in pieces)
        nbytes = stored * FLOAT_BYTES // gradient_bytes(self.pipeline.stage(work.stage).config)
        made = SliceSum(self._spec, work.step, work.stage, work.first, work.end, nbytes, sums, work.divisor, salt)
        return Done((Made(work.stage, (("slice", self.ledger.enter(made)),)),))

    def _apply(self, work: ApplyWork, salt: int) -> Done:
        training = self.plan(work.step).training_of(work.stage)
        assert training is not None, f"step {work.step} does not train {work.stage}, yet is applied"
        parent = tuple((name, ref.id) for name, ref in work.state)
        slices = tuple(ref.id for ref in work.slices)
        detail = (work.update, work.updates, int(work.keep_optimizer))
        params, moments = f"params:{training.model}", f"optimizer:{work.stage}"
        state = [(name, ref) for name, ref in work.state if name not in (params, moments)]
        for part, ref in enumerate(shards_of(work.state, params)):
            for entry, nbytes in ((params, ref.nbytes), (moments, 2 * ref.nbytes))[: 1 + work.keep_optimizer]:
                made = Weights(entry, part, nbytes, self._spec, work.step, work.stage, parent, slices, detail, salt)
                state.append((entry, self.ledger.enter(made)))
        metrics = (("grad_norm", 1.0), ("learning_rate", 0.001))
        return Done((Made(work.stage, in_order(state), metrics),))

    def _init(self, work: InitWork, salt: int) -> Done:
        sizes: dict[str, tuple[int, ...]] = {f"base:{model}": (BASE_BYTES,) for model in self.pipeline.bases}
        sizes |= {
            f"params:{model}": cut(provenance.PARAMETER_BYTES, work.range_bytes) for model in self.pipeline.trainable
        }
        state: State = tuple(
            (entry, self.ledger.enter(Weights(entry, part, nbytes, self._spec, 0, "", (), (), (), salt)))
            for entry, each in sizes.items()
            for part, nbytes in enumerate(each)
        )
        return Done((Made("", state),))

    def _save(self, work: SaveWork, salt: int) -> Done:
        return Done((), detail=f"checkpoint-{work.step}-{work.version[:8]}")

    def _load(self, work: LoadWork, salt: int) -> Done:
        return Done((Made("load", work.header.state),))
