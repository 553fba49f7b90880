"""Admission control: which records, seals and claims of a member are well-formed for this run, before any is kept.

What is kept is looked at again and again, so what would make a reconcile fail must not get in, nor what would make it
long. A seal must also join only what belongs together: that can be read off its ids. That what is said
is also true is for content ids, evidence and fork choice to settle.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

from ..claiming.failure import Failures
from ..names import MANIFEST, UPDATE, Block, Once, Part, Partition, RecordId, Slice, TaskKey
from ..pipeline.plan import Chain, StepPlan, Training, partition_groups
from ..pipeline.spec import Pipeline
from ..ranges import BASE_BYTES, MAX_RANGES, State, gradient_sizes, is_cut, shards_of
from ..versions import coefficients, kept
from ..versions.lagged import roles
from ..wire.steps import Failure, Header, Record, Seal, Skip
from .batch import kept_by_round, rounds_of
from .reduction import slices
from .sealing import sealed_chains_of

MAX_JUMP = 8  # generations of a seal that a node may have missed; one that is far ahead could never be outbid
MAX_IDS = 512  # that a record names as read or made; the longest are the shards of a large model's gradient
MAX_METRICS = 256  # of a record
MAX_NAME = 200  # characters of a metric's or an output's name


def is_unit(task: TaskKey, plan: StepPlan) -> bool:
    """Whether a task is one of the step's."""
    chain, training = _chain_of(task.stage, plan), plan.training_of(task.stage)
    if task.step != plan.step:
        return False
    match task.part:
        case Partition(index):
            return chain is not None and index < chain.partitions
        case Block(end=end):
            return training is not None and end <= training.leaves
        case Slice():
            return training is not None
        case Once():
            return False


def is_single(task: TaskKey, plan: StepPlan) -> bool:
    """Whether a task is one partition, named by its chain's first stage, or one leaf: what may change hands."""
    if not is_unit(task, plan) or isinstance(task.part, Slice):
        return False
    return len(task.leaves) == 1 or any(task.stage == chain.stages[0] for chain in plan.chains)


def is_failure(failure: Failure, plan: StepPlan) -> bool:
    """Whether a failure can be: of a task of the step, or of what all nodes do for themselves; not too often."""
    task, applied = failure.task, [(training.stage, Once("apply")) for training in plan.trainings]
    is_own = (task.stage, task.part) in (("init", Once("init")), *applied)
    return 1 <= failure.attempt <= Failures.ANY_ERROR and (is_own or is_unit(task, plan))


def is_record(record: Record, plan: StepPlan) -> bool:
    """Whether a record has the form of one of the step's tasks: its outputs and groups are those that are read."""
    if not is_unit(record.task, plan) or not _is_short(record):
        return False
    if not isinstance(record.task.part, Partition):
        return len(record.outputs) == 1 or (len(record.outputs) > 1 and isinstance(record.task.part, Block))
    stage, chain = record.task.stage, _chain_of(record.task.stage, plan)
    if chain is None or chain.sealed_in != MANIFEST:
        return chain is None or len(record.groups) <= chain.groups
    made = {f"{stage}.{name}" for name, _ in record.outputs}
    read = {read for read in chain.trained if read.partition(".")[0] == stage}
    first, end = partition_groups(chain, record.task.part.index)
    if stage in chain.counted:
        return made >= read and len(record.groups) == end - first
    return made >= read and len(record.groups) <= end - first


def is_of_gradient(record: Record, state: State, training: Training) -> bool:
    """Whether the record of a block or a slice is of a gradient of this training: a block's shards are cut where those
    of the parameters are, a slice is one of those into which so many bytes are cut."""
    part, params = record.task.part, shards_of(state, f"params:{training.model}")
    sizes = gradient_sizes(params, training.gradient_bytes)
    if not params:
        return False
    if isinstance(part, Block):
        return tuple(ref.nbytes for ref in record.shards) == sizes
    return isinstance(part, Slice) and part in slices(sum(sizes), training.leaves)


def is_seal(seal: Seal, plan: StepPlan, admitted: Container[RecordId] = ()) -> bool:
    """Whether a seal's entries are what its kind lists: each of the step's tasks once, in order, in as many rounds as
    they show to be due; and each read what the seal says that it did. `admitted`: records of the step that were
    looked at before."""
    if not all(record.id in admitted or is_record(record, plan) for record in seal.entries):
        return False
    if not _is_linked(seal, plan):
        return False
    tasks = [(record.task.stage, record.task.part) for record in seal.entries]
    if seal.kind == MANIFEST:
        chains = sealed_chains_of(plan, MANIFEST)
        if not _are_skips(seal.skipped, plan) or not all(_are_rounds(seal, chain, plan) for chain in chains):
            return False
        without = {(skip.task.stage, skip.task.part) for skip in seal.skipped}
        return tasks == [task for chain in chains for task in _tasks(chain, rounds_of(seal, chain), without)]
    if seal.skipped:
        return False
    rest = [task for chain in sealed_chains_of(plan, UPDATE) for task in _tasks(chain)]
    slices = seal.entries[: len(seal.entries) - len(rest)]
    return seal.kind == UPDATE and tasks[len(slices) :] == rest and _are_slices(slices)


def is_header(header: Header, pipeline: Pipeline) -> bool:
    """Whether a header can be one of the run's: a state with all parameters, and a parent unless it is the first."""
    names = [name for name, _ in header.state]
    carried = roles(pipeline) | kept.roles(pipeline)
    wanted = {*(f"params:{model}" for model in pipeline.trainable), *carried}
    bases = {f"base:{model}" for model in pipeline.bases}
    known = {f"optimizer:{stage.id}": str(stage.model) for stage in pipeline.stages}  # files of checkpoints have these
    sizes = {role: [ref.nbytes for ref in shards_of(header.state, role)] for role in names}
    return (
        0 <= header.step <= pipeline.schedule.versions
        and (header.parent is None) == (header.step == 0)
        and header.parent != header.id
        and names == sorted(names)
        and coefficients.are_of(pipeline, header.coefficients)
        and wanted | bases == sizes.keys() - known.keys()
        and all(is_cut(sizes[role]) for role in wanted)
        and all(sizes[role] == sizes[f"params:{model}"] for role, model in carried.items())
        and kept.is_own(pipeline, header.step, header.state)
        and all(sizes[role] == [BASE_BYTES] for role in bases)
        and all(
            [*sizes[role]] == [2 * size for size in sizes.get(f"params:{known[role]}", ())]
            for role in sizes.keys() & known.keys()
        )
    )


def _chain_of(stage: str, plan: StepPlan) -> Chain | None:
    return next((chain for chain in plan.chains if stage in chain.stages), None)


def _are_skips(skipped: Sequence[Skip], plan: StepPlan) -> bool:
    """Whether these are partitions that a manifest may lack, each once, in order."""
    tasks = [skip.task for skip in skipped]
    firsts = {chain.stages[0] for chain in plan.chains if chain.sealed_in == MANIFEST}
    return tasks == sorted(set(tasks)) and all(is_unit(task, plan) and task.stage in firsts for task in tasks)


def _are_rounds(seal: Seal, chain: Chain, plan: StepPlan) -> bool:
    """Whether a manifest has as many rounds of a chain as its records ask for. One that is carried on has as many as
    the one before it, whatever of that was lost since."""
    rounds, kept = rounds_of(seal, chain), kept_by_round(seal, chain)
    return plan.is_carried or rounds == chain.rounds.due([*kept[:rounds], *[None] * (len(kept) - rounds)])


def _tasks(chain: Chain, rounds: int = 1, without: Container[tuple[str, Part]] = ()) -> Iterator[tuple[str, Part]]:
    for partition in map(Partition, range(chain.round(rounds).start)):
        if (chain.stages[0], partition) not in without:
            yield from ((stage, partition) for stage in chain.stages)


def _are_slices(records: Sequence[Record]) -> bool:
    """Whether these are slices of one training that follow each other from the first chunk on."""
    at = 0
    if len(records) > MAX_RANGES or len({record.task.stage for record in records}) > 1:
        return False
    for record in records:
        part = record.task.part
        if not isinstance(part, Slice) or part.first != at:
            return False
        at = part.end
    return True


def _is_short(record: Record) -> bool:
    """Whether a record takes no more memory and time than an honest one may."""
    names = [name for name, _ in (*record.outputs, *record.metrics)]
    return (
        max(len(record.inputs), len(record.outputs)) <= MAX_IDS
        and len(record.metrics) <= MAX_METRICS
        and all(len(name) <= MAX_NAME for name in names)
    )


def _is_linked(seal: Seal, plan: StepPlan) -> bool:
    """Whether a seal joins only what belongs together: a chain's records read the parent and each other's outputs, a
    slice the parent and the manifest. Where rollouts are behind they read one thing, which their seal does not name, or
    each its own, where they may be of any version."""
    chains = {stage: chain for chain in plan.chains for stage in chain.stages}
    made: tuple[str, ...] = ()
    sources: set[str] = set()
    for record in seal.entries:
        chain = chains.get(record.task.stage) if isinstance(record.task.part, Partition) else None
        if chain is None:
            if record.inputs != (seal.parent, seal.previous):
                return False
            continue
        if record.task.stage == chain.stages[0]:
            made = ()
        if not record.inputs or record.inputs[1:] != made:
            return False
        sources.add(record.inputs[0])
        made += tuple(ref.id for ref in record.shards)
    if seal.kind != MANIFEST:
        return sources <= {seal.parent}
    return seal.previous == seal.parent and _is_of_source(sources, seal, plan)


def _is_of_source(sources: set[str], seal: Seal, plan: StepPlan) -> bool:
    """Whether a manifest's chains may have read these: its parent, if nothing is behind that."""
    if plan.is_carried or not (plan.lag or plan.max_staleness):
        return sources <= {seal.parent}
    return len(sources) <= 1 or plan.max_staleness > 0
