"""plan(): what a step consists of, derived by every node alike from the spec and what was sealed before.

Pure, and the only place where a pipeline becomes tasks. Nothing here knows who runs them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..names import MANIFEST, UPDATE, Block, Once, Partition, SealKind, TaskKey, content_id
from .grammar.algorithms import DIVISORS, divisor_of
from .grammar.engines import ENGINES, EXACT
from .grammar.signatures import Lesson, enough, gradient_bytes, loss_of, updates_of
from .graph import chains
from .spec import Pipeline, Stage

MOST_AT_ONCE = 8  # partitions in a slot: what has begun is given to no idle node any more


@dataclass(frozen=True, slots=True)
class Rounds:
    """How often a step may run a chain, on other groups each time: until so many groups in all are trained on."""

    until: int = 0  # groups that are enough; what there is beyond them is not trained on
    most: int = 1
    counted: str = ""  # the stage whose records say which groups are trained on

    def due(self, kept: Iterable[int | None]) -> int:
        """How many rounds there are to be. `kept`: by round, how many of its groups are trained on; None where it is
        not over."""
        total = 0
        for count, groups in enumerate(kept, 1):
            if groups is None:
                return count
            total += groups
            if total >= self.until:
                return count
        return self.most


@dataclass(frozen=True, slots=True)
class Chain:
    """Stages that run one after the other on each partition, in one call of each engine that follows another."""

    stages: tuple[str, ...]  # stage ids, in order; the first one names the chain
    partitions: int  # of all rounds that there may be
    groups: int  # prompts of these, dealt to partitions in contiguous runs
    models: tuple[str, ...]  # models whose parameters some stage reads, of those that versions have
    sealed_in: SealKind  # `manifest`: training waits for it; `update`: only the step's end does (evaluate)
    cuts: tuple[int, ...] = ()  # places of stages with which another call begins
    at_once: int = 1  # partitions that one slot may work on together
    apart: tuple[str, ...] = ()  # stages that pass through a model in another engine than the one that samples
    trained: tuple[str, ...] = ()  # "stage.output" of each partition that the step's trainings read
    counted: tuple[str, ...] = ()  # stages whose records' `groups` say what is trained on
    rounds: Rounds = Rounds()
    bases: tuple[tuple[str, str], ...] = ()  # models that stand on a base, each with the one by which versions name it

    def round(self, index: int) -> range:
        """The partitions of a round."""
        each = self.partitions // self.rounds.most
        return range(index * each, (index + 1) * each)

    def round_of(self, partition: int) -> int:
        return partition // (self.partitions // self.rounds.most)

    def call(self, done: int) -> tuple[str, ...]:
        """The stages that are one engine's call, where the first `done` are done: as far as the engine stays."""
        return self.stages[done : next((cut for cut in self.cuts if cut > done), None)]

    def together(self, call: Collection[str]) -> int:
        """How many calls of these stages one slot may have: one that needs the device for another engine has it for
        itself, as what is being sampled would have to leave."""
        return self.at_once if set(self.apart).isdisjoint(call) else 1


@dataclass(frozen=True, slots=True)
class MiniBatch:
    """Which of a manifest's kept groups an update trains on: the part `index` of `count`, as evenly as groups allow, of
    the groups in an order by hash. `order` names that, another one each epoch; where there is one part, none."""

    index: int = 0
    count: int = 1
    order: str = ""

    def of(self, groups: Sequence[tuple[int, int]]) -> Collection[tuple[int, int]]:
        """Those of `groups` that are in it, each by (partition, place in it)."""
        if self.count == 1:
            return groups
        order = sorted(groups, key=lambda group: content_id("mini-batch", [self.order, *group]))
        return {*order[self.index * len(order) // self.count : (self.index + 1) * len(order) // self.count]}


@dataclass(frozen=True, slots=True)
class Training:
    """An optimizer update: leaves read what the chains' stages made."""

    stage: str
    model: str
    leaves: int  # V, a power of two
    reads: tuple[str, ...]  # "stage.output" of each partition that a leaf needs
    groups_from: str  # the stage whose records' `groups` say what is trained on
    divisor: str  # what the summed gradient is divided by: one of DIVISORS
    most_tokens: int  # of the completions of the step, or of the mini-batch, if each is as long as it may be
    update: int  # how many updates this stage made before this one
    updates: int  # how many it makes in the whole run
    keep_optimizer: bool  # whether the stage makes a later one
    gradient_bytes: int  # of an element of a block's gradient
    epoch: int = 0  # of the step
    minibatch: MiniBatch = MiniBatch()
    whitens: bool = False  # whether advantages are whitened by those of the whole step
    most_groups: int | None = None  # that all updates of the step train on, the first of those that are kept; None: all

    def share(self, groups: Sequence[tuple[int, int]]) -> Collection[tuple[int, int]]:
        """Those of a manifest's kept groups that this update trains on, each by (partition, place in it)."""
        return self.minibatch.of(groups[: self.most_groups])

    def divide_by(self, groups: Iterable[tuple[int, int]]) -> int:
        """What the summed gradient is divided by. `groups`: (tokens, completions) of each that is trained on."""
        return DIVISORS[self.divisor](groups, self.most_tokens)


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What leads from version `step` to the next one. At the final version there is only what is evaluated on it; a
    step may have no training at all, and then hands its state on unchanged. Where a step of the pipeline makes several
    updates only the first of their plans has chains to run: the others go on with what those gave, `is_carried`."""

    step: int  # the version's number
    first: int  # of the version that its step of the pipeline begins with
    chains: tuple[Chain, ...]
    trainings: tuple[Training, ...]  # the update that is made, if one is
    samples_from: int  # the number of the version that its rollouts are sampled from: the newest that they may be of
    oldest: int  # of the oldest that they may be of, where each is of the newest version that its sampler had
    is_carried: bool = False  # whether what its chains give was made for the step before it
    lag: int = 0  # how many steps of the pipeline its rollouts are behind, once there are so many
    max_staleness: int = 0  # how many they may be, where each is of the newest version that its sampler had

    def training_of(self, stage: str) -> Training | None:
        """What this stage trains in the step; None if it trains nothing."""
        return next((training for training in self.trainings if training.stage == stage), None)


def plan(pipeline: Pipeline, number: int) -> StepPlan:
    """What version `number` is followed by. Raises ValueError outside [0, versions]."""
    place = pipeline.schedule.place(number)
    active = [stage for stage in pipeline.stages if _is_due(pipeline, stage, place.step)]
    updates = _updates(active)
    sources = {stage.id: _sources(stage) for stage in _ordered(active)}
    groups = chains(sources, [stage.id for stage in active if not stage.operator.is_on_partitions])
    readings = [_Reading.of(stage, lesson) for stage in active if (lesson := stage.operator.trains)]
    found = tuple(_chain(pipeline, group, readings) for group in groups)
    trained = (_training(pipeline, *updates[place.update], place.step, found),) if updates else ()
    if place.update:
        found = tuple(chain for chain in found if chain.sealed_in == MANIFEST)
    behind = pipeline.lag, pipeline.lag + pipeline.max_staleness  # one of them, as validation has seen to
    newest, oldest = (pipeline.schedule.first(max(0, place.step - steps)) for steps in behind)
    lags = pipeline.lag, pipeline.max_staleness
    return StepPlan(number, place.first, found, trained, newest, oldest, place.update > 0, *lags)


def partition_groups(chain: Chain, partition: int) -> tuple[int, int]:
    """The groups [first, end) of the step that a partition has: contiguous runs that differ by at most one. Those of a
    later round are other groups."""
    if not 0 <= partition < chain.partitions:
        raise ValueError(f"partition {partition} of {chain.partitions}")
    return partition * chain.groups // chain.partitions, (partition + 1) * chain.groups // chain.partitions


def tasks(step_plan: StepPlan) -> tuple[TaskKey, ...]:
    """A step's tasks for people to read: every stage of every partition, every leaf, the update.

    How leaves are summed and sliced depends on the model's size and on who is there, so blocks and slices are not
    among them.
    """
    step = step_plan.step
    keys = [
        TaskKey(step, stage, Partition(partition))
        for chain in (() if step_plan.is_carried else step_plan.chains)
        for partition in range(chain.partitions)
        for stage in chain.stages
    ]
    for training in step_plan.trainings:
        keys += [TaskKey(step, training.stage, Block.of_leaf(leaf)) for leaf in range(training.leaves)]
        keys.append(TaskKey(step, training.stage, Once("apply")))
    return tuple(keys)


def _is_due(pipeline: Pipeline, stage: Stage, step: int) -> bool:
    """The final version is always evaluated, and nothing else happens to it."""
    if step == pipeline.schedule.steps:
        return stage.operator.evaluates
    return pipeline.schedule.is_active(stage.id, step)


def _sources(stage: Stage) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(_stage_of, stage.reads)))


def _ordered(active: list[Stage]) -> list[Stage]:
    """Stages such that each comes after what it waits for, else as written."""
    done: list[Stage] = []
    waiting = list(active)
    while waiting:
        left = [stage.id for stage in waiting]
        ready = next(s for s in waiting if not any(name in left for name in (*_sources(s), *s.after)))
        waiting.remove(ready)
        done.append(ready)
    return done


@dataclass(frozen=True, slots=True)
class _Reading:
    """What a training stage reads, of any of its updates. `trained`: as in Chain."""

    trained: tuple[str, ...]
    samples_from: str
    groups_from: str

    @classmethod
    def of(cls, stage: Stage, lesson: Lesson) -> _Reading:
        reads = tuple(stage.reads) or tuple(f"{stage.id}.{output}" for output in stage.writes)
        samples, groups = (
            _stage_of(next(read for read in reads if read.endswith(f".{output}")))
            for output in (lesson.samples, lesson.groups)
        )
        return cls(reads, samples, groups)


def _chain(pipeline: Pipeline, group: tuple[str, ...], readings: Sequence[_Reading]) -> Chain:
    stages = [pipeline.stage(name) for name in group]
    config, begins = stages[0].config, stages[0].operator.begins
    assert begins is not None, "a chain begins with what makes its partitions: validation has seen to that"
    readers = [str(stage.model) for stage in stages if stage.operator.model == "parameters"]
    engines = [pipeline.engine_of(name) for name in group]
    counted = tuple(dict.fromkeys(each.groups_from for each in readings if each.groups_from in group))
    rounds = _rounds(stages, counted, config[begins.groups])
    return Chain(
        stages=group,
        partitions=config["partitions"] * rounds.most,
        groups=config[begins.groups] * rounds.most,
        models=tuple(model for model in sorted((*pipeline.trainable, *pipeline.kept)) if model in readers),
        sealed_in=MANIFEST if any(reading.groups_from in group for reading in readings) else UPDATE,
        cuts=_cuts(stages, engines),
        apart=tuple(
            stage.id
            for stage, engine in zip(stages, engines, strict=True)
            if stage.model is not None and ENGINES[engine].batch < max(ENGINES[e].batch for e in engines)
        ),
        at_once=_at_once(pipeline, engines, -(-config[begins.groups] // config["partitions"]) * stages[0].width),
        trained=tuple(dict.fromkeys(read for each in readings for read in each.trained if _stage_of(read) in group)),
        counted=counted,
        rounds=rounds,
        bases=tuple((model, of) for model in sorted({*readers}) if (of := pipeline.stands_on(model)) is not None),
    )


def _rounds(stages: Iterable[Stage], counted: Sequence[str], groups: int) -> Rounds:
    """As the one stage says that has rounds, in a step in which something is trained. `groups`: of one round."""
    said = next((stage.rounds for stage in stages if stage.rounds is not None), None)
    if said is None or not counted:
        return Rounds()
    return Rounds(enough(said["until"], groups), said["max"], counted[0])


def _cuts(stages: Sequence[Stage], engines: Sequence[str]) -> tuple[int, ...]:
    """Before a stage of another engine than the one before it; and before one that passes what was just sampled through
    a model: meanwhile the samples, which are long and dear, get their second copy."""
    return tuple(
        at
        for at, (before, stage) in enumerate(pairwise(stages), 1)
        if engines[at - 1] != engines[at] or (before.operator.samples and stage.operator.model == "parameters")
    )


def _at_once(pipeline: Pipeline, engines: Sequence[str], completions: int) -> int:
    """As many partitions, of so many completions each, as fill the batch of what samples. One where weights are a
    function of the spec alone: what others say beside it rounds a completion otherwise."""
    if pretended := pipeline.emulated.get("at_once"):  # by bytes that no batch changes
        return max(1, int(pretended))
    batch = max(ENGINES[name].batch for name in engines)
    if pipeline.reproducibility == EXACT or batch == 1:
        return 1
    return max(1, min(MOST_AT_ONCE, batch // completions))


def _updates(active: Iterable[Stage]) -> list[tuple[Stage, Lesson, int]]:
    """The updates of a step in their order: by stage, epoch and mini-batch. Each: the stage, and which of its own."""
    return [
        (stage, lesson, at)
        for stage in active
        if (lesson := stage.operator.trains) is not None
        for at in range(updates_of(stage.config))
    ]


def _training(
    pipeline: Pipeline, stage: Stage, lesson: Lesson, at: int, step: int, chains: Iterable[Chain]
) -> Training:
    """Update `at` of those that a stage makes in a step."""
    reading = _Reading.of(stage, lesson)
    rounds = next(chain.rounds for chain in chains if reading.groups_from in chain.stages)
    most_groups = rounds.until or None
    kind, settings = loss_of(lesson, stage.config)
    schedule, each, parts = pipeline.schedule, updates_of(stage.config), int(stage.config.get("minibatches", 1))
    epoch, part = divmod(at, parts)
    return Training(
        stage=stage.id,
        model=str(stage.model),
        leaves=stage.config["leaves"],
        reads=reading.trained,
        groups_from=reading.groups_from,
        divisor=divisor_of(kind, settings),
        most_tokens=max(1, _most_tokens(pipeline, reading.samples_from, most_groups) // parts),
        update=schedule.runs_before(stage.id, step) * each + at,
        updates=schedule.runs(stage.id) * each,
        keep_optimizer=at + 1 < each or schedule.runs_after(stage.id, step),
        gradient_bytes=gradient_bytes(stage.config),
        whitens=bool(pipeline.stage(reading.groups_from).config.get("whiten")),
        epoch=epoch,
        minibatch=MiniBatch(part, parts, f"{pipeline.id}/{step}/{stage.id}/{epoch}") if parts > 1 else MiniBatch(),
        most_groups=most_groups,
    )


def _stage_of(read: str) -> str:
    return read.partition(".")[0]


def _most_tokens(pipeline: Pipeline, maker: str, most_groups: int | None) -> int:
    """Of all completions of a step by a stage that may be trained on; of demonstrations, whose lengths no spec bounds,
    their number."""
    root = pipeline.beginning_of(maker)
    assert root.operator.begins is not None, "so it is found"
    groups = most_groups or int(root.config[root.operator.begins.groups])
    return groups * root.width * int(pipeline.stage(maker).config.get("max_tokens", 1))
