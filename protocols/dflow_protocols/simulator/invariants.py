"""What must hold in every world, whatever breaks: one checker a promise.

Nothing mixed: `check_work` looks at each work as it starts, `SealCheck` (sealed.py) at each seal as it is sent. One
chain, each sealed sample trained exactly once per epoch: `check_chain` walks a final version back to the beginning.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..events import FilesFound
from ..metrics import whitening
from ..names import RunId, ShardId, chunk_count
from ..pipeline.grammar.signatures import gradient_bytes
from ..pipeline.plan import Training
from ..ranges import FLOAT_BYTES, Piece, State, pieces, shards_of
from ..wire.frame import Frame, decode_frame, encode_frame, parts_of
from ..wire.steps import Header, HeaderPut
from ..work import ApplyWork, BlockWork, ChainWork, Groups, InitWork, LoadWork, SaveWork, SliceWork, SumWork, Work
from .model import provenance
from .model.provenance import BlockSum, LeafSum, Ledger, PartitionOutput, SliceSum, Weights
from .model.work import Engines
from .parameters import check_carried, check_parameters, check_read, check_sampled

Cover = tuple[tuple[int, int, tuple[Piece, ...]], ...]  # blocks of leaves, and where their gradients lie


INVARIANTS = {
    "no_error": "a node takes every event without an error, and its books agree with each other",
    "time_passes": "a node's next alarm does not lie in the past for ever",
    "drained_rests": "a drained node starts no work but what hands over what it has",
    "inputs_here": "a work starts only where all that it reads lies",
    "work_linked": "a work joins only what belongs together",
    "files_here": "a work that opens files starts only where they lie and their code is run",
    "seal_true": "a seal lists each task of its step once, and its records tell the truth and belong together",
    "header_true": "a version says truly which steps and how many samples went into it",
    "one_name": "records, seals and versions that have one id are one",
    "bytes_same": "a frame is the same after its bytes",
    "answer_kept": "what a client was told is done lies on two disks, or all there are",
    "disk_vouched": "who vouches for a run's status has it on its disk",
    "books_true": "what a node takes for here lies in its store",
    "copied_first": "what a manifest names has two holders, where nothing struck for long",
    "seal_kept": "a seal is acted on when a second node keeps it",
    "end_saved": "a run ends when its version lies on the disks of two that hold it, where nothing struck for long",
    "bounded_ahead": "a node makes few versions beyond the committed one",
    "claim_first_hand": "a claim is passed on by who heard it of the node that made it",
    "pure": "where the same work gives the same bytes every version is the one that one undisturbed node makes",
    "weights_follow": "weights that follow what was measured are those that a version's parent and its manifest make",
    "end_stays": "a run that has finished or was cancelled is never taken for less, nor an attempt for an earlier one",
    "branch_told_once": "a lost branch is told of once by a node, in a life and attempt",
    "one_branch": "of branches whose nodes hear each other again one is left, which all that work on the run hold",
    "never_back": "a node leaves a version only for a better one, so the best falls with all that hold it, or never",
    "committed_kept": "what a node holds of the newest committed version stays",
    "late_served": "the newest committed version's parent and the slices after it stay while a member is late",
    "leave_hands_over": "who was asked to leave takes nothing with it that the open step needs and nobody else has",
    "seal_settles": "where all is well a seal is settled at once",
    "slots_filled": "where all is well no partition waits long beside a slot that is idle",
    "never_still": "where all is well a run is always at work somewhere, until it has ended",
    "step_in_time": "where all is well a step takes a bounded time, however long the trouble was before",
    "ends_in_time": "where nothing strikes, or frames are lost and no more, a run ends in so many seconds a step",
    "bytes_derived": "where nothing strikes a step moves a gradient for each leaf and one for each other node at most,"
    " and little more than a second copy of what it sampled",
    "redone_lost": "where nodes die and nothing else strikes no more is done again than what the dead held",
    "best_comes_back": "when all died at once a run goes on from the best whole checkpoint that came back in time",
    "no_cycle": "no unit is left, and no shard asked for, in a circle for longer than leases last",
    "done_once": "where nothing breaks each unit is done once, but for a few thefts that cross",
    "stops_for_reason": "a work is given up for a reason: another version, an end, a thief, a node that takes no more",
    "drained_lets_go": "a drained node gives up its version when two others are beyond it",
    "summed_first": "a node sums what its slots made before it tells others of it",
    "failed_moves_on": "a task that failed at a node is done by one at whom it did not, where there is one",
    "broken_rests": "a node that fails different tasks in a row withdraws",
    "leave_gives_back": "who leaves takes its claims back at once",
    "commit_true": "a version is taken for committed once two nodes hold it, or all trainers, or the own disk",
    "slept_listens": "who slept for long acts only after it heard what happened meanwhile, or from nobody",
    "one_speaks": "of two processes with one key one falls silent, and does nothing more, and the other goes on",
    "task_gives_up": "a task that fails wherever it is tried is given up after few engines, not tried for ever",
    "within_bounds": "a store holds what it may, and each table of a node is as short as docs/bounds.md says",
    "withdrawn_rests": "who has withdrawn from a stage starts none of it while others can",
    "loan_lapses": "what was lent to somebody who never claims it is the lender's again when its lease is over",
    "minority_waits": "who sees less than half of a step's roster alive does not go on, where a run asks for that",
    "unreached_rests": "whom nobody can dial counts as living to nobody",
    "scenario": "what a scenario waits for comes about",
    "run_ends": "once everything has healed the run ends, in the same way at every node",
    "shards_freed": "no shard of a run that ended is left",
    "checkpoints_go": "no disk keeps more checkpoints of a run that ended than it asks for",
    "one_version": "all nodes end with one version",
    "version_saved": "the version that a run ended with was saved",
    "one_chain": "a final version passed each training step of the run once, in order",
    "members_agree": "once everything has healed all that live know each other as alive, and nobody else",
    "one_digest": "one seed gives one story",
}
"""What must hold in every world, by the name that a violation tells."""


class Violation(AssertionError):
    """A promise was broken. Its text ends in how to see it again."""

    def __init__(self, text: str, invariant: str, at: float) -> None:
        """`at`: seconds of virtual time."""
        assert invariant in INVARIANTS, f"no invariant is called {invariant}"
        super().__init__(text, invariant, at)  # what a copy in another process is made of
        self.invariant = invariant
        self.at = at

    def __str__(self) -> str:
        return str(self.args[0])


def check_work(engines: Engines, work: Work) -> None:
    """Raises AssertionError where a work would join what does not belong together."""
    match work:
        case ChainWork():
            check_read(engines, work)
            given = {ref.id: engines.ledger.partition_output(ref.id, work.partition) for _, ref in work.inputs}
            check_linked(engines, given, work.step, work.partition)
        case BlockWork():
            _check_block(engines, work)
        case SumWork():
            element_bytes = gradient_bytes(engines.pipeline.stage(work.stage).config)
            whole = (0, chunk_count(provenance.PARAMETER_BYTES // FLOAT_BYTES * element_bytes))
            cover = tuple((first, end, pieces(refs, *whole)) for first, end, refs in work.cover)
            _check_cover(engines, work, cover, whole, work.first, work.end)
        case SliceWork():
            _check_slice(engines, work)
        case ApplyWork():
            _check_apply(engines, work)
        case LoadWork(header=header):
            check_header(engines, header)
        case SaveWork() | InitWork():
            pass


def check_files(engines: Engines, work: Work, found: FilesFound) -> None:
    """A work that opens files starts only where they lie, and where the code of all that is left of its chain is run:
    whatever others do. Works on shards alone open none. Raises AssertionError."""
    match work:
        case ChainWork():
            chain = next(chain for chain in engines.plan(work.step).chains if work.stages[0] in chain.stages)
            stages = set(chain.stages[chain.stages.index(work.stages[0]) :])
        case BlockWork():
            stages = {work.stage}
        case InitWork() | SaveWork():
            stages = set()
        case SumWork() | SliceWork() | ApplyWork() | LoadWork():
            return
    assert not found.lacking, f"{type(work).__name__} starts without the run's files: {found.lacking}"
    assert stages.isdisjoint(found.refused), f"{type(work).__name__} starts where {found.refused} are refused"


def check_linked(engines: Engines, given: Mapping[ShardId, PartitionOutput], step: int, partition: int) -> None:
    """All are outputs of one execution chain of one partition, under one version where they read parameters at all and
    the pipeline does not let each call have its own."""
    step, most = engines.first(step), engines.pipeline.max_staleness
    for entry in given.values():
        where = f"{entry.step}/{entry.stage}/p{entry.partition}"
        assert (entry.step, entry.partition) == (step, partition), f"{where} is read as {step}/p{partition}"
    versions = {entry.params for entry in given.values()} - {()}
    what = f"what is read of p{partition} was made with parameters of {len(versions)} versions"
    assert len(versions) <= 1 or most, what
    last = max(given, key=lambda shard: len(given[shard].inputs), default=None)
    if last is not None:
        longest = given[last]
        beside = {
            shard for shard, each in given.items() if (each.stage, each.inputs) == (longest.stage, longest.inputs)
        }  # further outputs of the same stage
        strangers = given.keys() - beside - set(longest.inputs)
        assert not strangers, f"{longest.stage} of p{partition} was not made from the {len(strangers)} read beside it"


def _training(engines: Engines, step: int, stage: str) -> Training:
    training = engines.plan(step).training_of(stage)
    assert training is not None, f"step {step} does not train {stage}"
    return training


def _check_block(engines: Engines, work: BlockWork) -> None:
    check_parameters(engines, work.state, work.step)
    size = work.end - work.first
    aligned = size > 0 and size & (size - 1) == 0 and work.first % size == 0
    assert aligned, f"the block [{work.first}, {work.end}) is not aligned"
    by_partition: dict[int, dict[ShardId, PartitionOutput]] = {}
    for partition, _, ref in work.inputs:
        by_partition.setdefault(partition, {})[ref.id] = engines.ledger.partition_output(ref.id, partition)
    for partition, given in by_partition.items():
        check_sampled(engines, work, given.values())
        check_linked(engines, given, work.step, partition)
    for leaf in work.leaves:
        assert work.first <= leaf.leaf < work.end, f"leaf {leaf.leaf} is outside its block"
        for partition, _, _ in leaf.pieces:
            assert partition in by_partition, f"leaf {leaf.leaf} reads partition {partition}, which is not given"


def _check_sums(engines: Engines, training: Training, step: int, sums: tuple[LeafSum, ...], divisor: int) -> None:
    """The leaves of one sum read one chain a partition, each kept group once, and the divisor counts just these."""
    numbers = [leaf.leaf for leaf in sums]
    assert numbers == sorted(set(numbers)), f"leaves {numbers} of step {step} are not each summed once, in order"
    assert len({leaf.params for leaf in sums}) <= 1, f"leaves of step {step} were computed under several versions"
    read: dict[tuple[int, str], ShardId] = {}
    counted: dict[int, list[int]] = {}
    for leaf in sums:
        for partition, name, shard in leaf.inputs:
            seen = read.setdefault((partition, name), shard)
            assert seen == shard, f"leaf {leaf.leaf} reads another {name} of p{partition} than a leaf before it"
        for partition, first, end in leaf.pieces:
            counted.setdefault(partition, []).extend(range(first, end))
    trained: list[tuple[int, int]] = []
    for partition, groups in sorted(counted.items()):
        sealed = _groups(engines, training, partition, read)
        kept = {index for index, (_, samples) in enumerate(sealed) if samples}
        # a group that was dropped may lie inside a leaf's run: it adds nothing
        assert len(set(groups)) == len(groups), f"step {step}: groups {groups} of p{partition} are trained twice"
        if _trains_on_all(training):  # which of them another one has follows from all: see SealCheck
            assert kept <= set(groups), f"step {step}: groups {sorted(kept - set(groups))} of p{partition} are left out"
        trained += [sealed[index] for index in groups]
    _check_whitening(engines, training, step, sums, read)
    total = training.divide_by(trained)
    assert divisor == total, f"step {step}: the divisor is {divisor}, the sealed {training.divisor} are {total}"


def _trains_on_all(training: Training) -> bool:
    """Whether it trains on each group that is kept."""
    return training.minibatch.count == 1 and training.most_groups is None


def _check_whitening(
    engines: Engines, training: Training, step: int, sums: tuple[LeafSum, ...], read: dict[tuple[int, str], ShardId]
) -> None:
    """Advantages are whitened alike in every leaf, by the whole step's: its leaves read all partitions that have any,
    unless they train on a part of it."""
    assert len({leaf.whitening for leaf in sums}) <= 1, f"leaves of step {step} are whitened by several"
    if not _trains_on_all(training):
        return
    told = [
        engines.ledger.partition_output(shard, partition).metrics
        for (partition, name), shard in sorted(read.items())
        if name.split(".")[0] == training.groups_from
    ]
    due = whitening(told) if training.whitens else None
    for leaf in sums:
        assert leaf.whitening == due, f"step {step}: leaf {leaf.leaf} is whitened by {leaf.whitening}, not by {due}"


def _groups(engines: Engines, training: Training, partition: int, read: dict[tuple[int, str], ShardId]) -> Groups:
    """What the record that says which groups of a partition are trained on has of each."""
    for (of, name), shard in read.items():
        if of == partition and name.split(".")[0] == training.groups_from:
            return engines.ledger.partition_output(shard, partition).groups
    raise AssertionError(f"no leaf reads what says which groups of p{partition} are kept")


def _check_cover(
    engines: Engines, work: SumWork | SliceWork, cover: Cover, chunks: tuple[int, int], at: int, last: int
) -> list[LeafSum]:
    """The blocks of a cover are what they are taken for, in these chunks of the gradient, and lie side by side in
    [at, last). Returns their leaves."""
    sums: list[LeafSum] = []
    for first, end, parts in cover:  # leaves without groups may be left out: the divisor shows if others are
        block = _block_of(engines.ledger, work, (first, end), parts, chunks)
        assert first >= at, f"the cover overlaps at leaf {first}"
        at = end
        sums += block.sums
    assert at <= last, f"the cover ends at leaf {at} of {last}"
    assert len({leaf.params for leaf in sums}) <= 1, "blocks of several versions are summed"
    return sums


def _check_slice(engines: Engines, work: SliceWork) -> None:
    training = _training(engines, work.step, work.stage)
    assert work.leaves == training.leaves, f"{work.leaves} leaves are summed"
    sums = _check_cover(engines, work, work.cover, (work.first, work.end), 0, work.leaves)
    _check_sums(engines, training, work.step, tuple(sums), work.divisor)


def _block_of(
    ledger: Ledger,
    work: SumWork | SliceWork,
    leaves: tuple[int, int],
    parts: tuple[Piece, ...],
    chunks: tuple[int, int],
) -> BlockSum:
    """The block of these leaves, of which just these chunks are read."""
    found, at = [], chunks[0]
    for ref, low, high in parts:
        block = ledger.block(ref.id, work.step, *leaves, at - low)
        assert (block.step, block.stage) == (work.step, work.stage), "a block of another step or stage is summed"
        assert (block.first, block.end) == leaves, "a block is taken for another one"
        assert block.at == at - low, f"what is read at chunk {at} lies elsewhere"
        assert high <= chunk_count(ref.nbytes), f"chunk {high - 1} of shard {ref.id[:8]} is beyond its end"
        found.append(block)
        at += high - low
    assert at == chunks[1], f"chunks up to {chunks[1]} are summed, and read are those up to {at}"
    assert all(block.sums == found[0].sums for block in found), "chunks of two sums are taken for one"
    return found[0]


def _same_reading(one: SliceSum, other: SliceSum) -> bool:
    """Whether two slices were summed over the same sealed inputs, whichever executions of the leaves they took."""
    return _reading(one) == _reading(other) and one.divisor == other.divisor


def _reading(of: SliceSum) -> list[tuple[object, ...]]:
    return [(leaf.leaf, leaf.pieces, leaf.inputs, leaf.params) for leaf in of.sums]


def check_whole(slices: list[SliceSum], step: int) -> None:
    """Together they are one gradient over one manifest, in order; or there is none, as every group was dropped."""
    at = 0
    for piece in slices:
        assert piece.step == step, f"a slice of step {piece.step} is applied in step {step}"
        assert piece.first == at, f"the slices have a gap or an overlap at chunk {at}"
        assert _same_reading(piece, slices[0]), f"slices of step {step} were summed over different inputs"
        at = piece.end
    whole = sum(piece.nbytes for piece in slices) == provenance.PARAMETER_BYTES
    assert not slices or whole, f"the slices of step {step} end at chunk {at}"


def _check_apply(engines: Engines, work: ApplyWork) -> None:
    passed = check_parameters(engines, work.state, work.step)
    slices: list[SliceSum] = []
    for ref in work.slices:
        slices.append(engines.ledger.slice(ref.id, work.step, slices[-1].end if slices else 0))
    check_whole(slices, work.step)
    names = (f"params:{_training(engines, work.step, work.stage).model}", f"optimizer:{work.stage}")
    params, moments = (shards_of(work.state, name) for name in names)
    computed = {leaf.params for piece in slices for leaf in piece.sums}
    trained = tuple(ref.id for ref in params)
    assert computed <= {trained}, f"step {work.step}: the gradient is of another version than applied to"
    has_begun = any(made.stage == work.stage for made in passed[names[0]][0])
    assert bool(moments) == has_begun, f"update {work.update} of {work.stage}, moments: {moments}"
    assert len(moments) in (0, len(params)), f"step {work.step}: moments are cut elsewhere than parameters"
    made_by = [
        {made.update for made in engines.ledger.weights(ref.id, name, part)}
        for name in names
        for part, ref in enumerate(shards_of(work.state, name))
    ]
    assert set.intersection(*made_by), f"step {work.step}: parameters and moments are of several updates"


def _trained_samples(engines: Engines, update: Weights) -> int:
    """How many samples the gradient of an update was summed over."""
    if not update.slices:
        return 0  # every group was dropped
    training, total = _training(engines, update.step, update.stage), 0
    for leaf in engines.ledger.slice(update.slices[0], update.step, 0).sums:
        said = {p: shard for p, name, shard in leaf.inputs if name.split(".")[0] == training.groups_from}
        for partition, first, end in leaf.pieces:
            groups = engines.ledger.partition_output(said[partition], partition).groups
            total += sum(samples for _, samples in groups[first:end])
    return total


def check_header(engines: Engines, header: Header) -> None:
    """A version says truly which steps and how many samples went into it: fork choice goes by that."""
    total = 0
    check_carried(engines, header.state, header.step)
    for model, ways in check_parameters(engines, header.state, header.step).items():
        trained = {sum(_trained_samples(engines, update) for update in updates) for updates in ways}
        assert len(trained) == 1, f"version {header.step} has shards of {model} that {sorted(trained)} samples trained"
        total += trained.pop()
    assert header.samples == total, f"version {header.step} says {header.samples} samples, trained were {total}"


def check_chain(engines: Engines, state: State) -> None:
    """A final version passed each training step of the run once, in order. Raises AssertionError."""
    check_parameters(engines, state, engines.pipeline.schedule.versions)


def check_headers(engines: Mapping[RunId, Engines], frame: Frame) -> None:
    """The versions that a node tells others of are as it says. Raises AssertionError."""
    for message in frame.messages:
        if isinstance(message, HeaderPut):
            check_header(engines[message.run], message.header)


def check_bytes(frame: Frame) -> None:
    """A frame is the same after its bytes; of one that no peer would take each part is, as daemons then send them
    apart. Raises AssertionError, and ValueError for a part that is too long for any frame."""
    try:
        data = encode_frame(frame.delta, frame.messages)
    except ValueError:
        parts = parts_of(frame)
        if not parts:
            raise
        for part in parts:
            check_bytes(part)
        return
    there = decode_frame(data)
    assert there == frame, f"a frame is not the same after its bytes: {frame} became {there}"
