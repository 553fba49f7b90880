"""The leaves of a node with several slots: all slots work, and others hear of no more blocks than of one slot's."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest

from dflow_protocols.names import CHUNK_BYTES, MANIFEST, Block, TaskKey
from dflow_protocols.pipeline.plan import plan
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.steps.batch import Batch, make_batch
from dflow_protocols.steps.blocks import block_duties, kept_back
from dflow_protocols.steps.duties import slice_homes
from dflow_protocols.steps.duty import SUM
from dflow_protocols.steps.roster import make_roster
from dflow_protocols.steps.view import StepView
from dflow_protocols.wire.steps import Record, Seal
from dflow_protocols.work import BlockWork, SumWork
from tests.unit.protocols.books import SPEC, ZERO, finished_partition, learn, shard, view, who

ME, OTHER = 1, 2
LEAVES = 4  # of the toy pipeline


def batch(at: StepView) -> Batch:
    """What training reads; every leaf has groups."""
    entries = [record for part in range(4) for record in finished_partition(part)]
    learn(at, *entries)
    manifest = Seal(SPEC, 0, ZERO.id, ZERO.id, MANIFEST, 0, 0, tuple(entries))
    (training,) = plan(two_steps(partitions=4, leaves=LEAVES), 0).trainings
    made = make_batch(manifest, training)
    assert len(made.needed) == LEAVES
    return made


def trainer(slots: int, members: Collection[int] = (ME,), others: int | None = None) -> StepView:
    """A view of node 1 with so many slots; the others have as many, or `others`."""
    at = view(me=ME, members=members)
    nodes = [who(number) for number in members]
    by_node = {node: slots if node == who(ME) or others is None else others for node in nodes}
    at.step.roster = make_roster(0, 0, nodes, nodes, by_node)
    return replace(at, slots=slots)


@pytest.mark.parametrize("chunks", [1, 3, 20])
def test_as_many_sum_slices_as_there_are_slices_or_trainers(chunks: int) -> None:
    """They are told of all blocks, and where members are many nobody else is."""
    at = trainer(1, members=range(1, 10))
    at.trains = replace(ZERO, state=(("params:policy", shard("params", chunks * CHUNK_BYTES)),))
    assert len(set(slice_homes(at, batch(at)))) == len(slice_homes(at, batch(at))) == min(chunks, 9)


def test_slices_have_the_same_homes_in_every_step() -> None:
    """What a node fetches for them then lies where the same chunks lay before: other chunks are fresh memory each
    time, and more of it with every step."""
    at = trainer(1, members=range(1, 4))
    at.trains = replace(ZERO, state=(("params:policy", shard("params", 9 * CHUNK_BYTES)),))
    made, trainers, reducers = batch(at), set(), set()
    for number in range(8):
        at.step.number, at.plan = number, replace(at.plan, first=number)
        trainers.add(at.trainers)
        reducers.add(tuple(slice_homes(at, made)))
    assert len(trainers) > len(reducers) == 1  # leaves are dealt in one order after the other


def blocks_of(at: StepView, made: Batch) -> list[tuple[int, int]]:
    works = [duty.work for duty in block_duties(at, made).here if isinstance(duty.work, BlockWork)]
    return [(work.first, work.end) for work in works]


def make(at: StepView, made: Batch, first: int, end: int, loss: float = 1.0) -> Record:
    """A slot of this node has summed a block."""
    ref = shard(f"block {first}-{end}")
    task = TaskKey(0, made.training.stage, Block(first, end))
    reads = (ZERO.id, made.manifest.id)
    record = Record(task, reads, (("gradient", ref),), (), (("loss_sum", loss),))
    at.holdings.keep(ref)
    at.step.kept_back[task] = record
    return record


@pytest.mark.parametrize(
    ("slots", "blocks"),
    [(1, [(0, 4)]), (2, [(0, 2), (2, 4)]), (3, [(0, 2), (2, 3), (3, 4)]), (4, [(n, n + 1) for n in range(4)])],
)
def test_a_host_cuts_its_leaves_by_its_slots(slots: int, blocks: list[tuple[int, int]]) -> None:
    """Eight slots that wait for one are a host of one slot; and one slot makes one gradient, not several."""
    at = trainer(slots)
    assert blocks_of(at, batch(at)) == blocks


def test_what_remains_is_cut_again_for_all_slots() -> None:
    """Slots of unequal speed end together: the first that is free does not take all that is left."""
    at = trainer(2)
    made = batch(at)
    at = replace(at, running=(TaskKey(0, made.training.stage, Block(0, 1)),))
    assert blocks_of(at, made) == [(1, 2), (2, 3), (3, 4)]
    make(at, made, 1, 2)
    assert blocks_of(at, made) == [(2, 3), (3, 4)]


def test_blocks_of_slots_are_summed_before_others_hear_of_them() -> None:
    """Each block that is told is fetched by every other owner of slices: a gradient more for each slot."""
    at = trainer(4, (ME, OTHER))
    made = batch(at)
    mine = [leaf for first, end in blocks_of(at, made) for leaf in range(first, end)]
    for place, leaf in enumerate(mine):
        assert kept_back(at, made).tell == []
        make(at, made, leaf, leaf + 1, loss=0.5 + place)
    (duty,) = block_duties(at, made).here
    work = duty.work
    assert isinstance(work, SumWork)
    assert duty.rank == SUM
    assert [(first, end) for first, end, _ in work.cover] == [(leaf, leaf + 1) for leaf in mine]
    assert dict(work.metrics) == {"loss_sum": sum(0.5 + place for place in range(len(mine)))}
    whole = make(at, made, work.first, work.end)
    now = kept_back(at, made)
    assert now.tell == [whole]
    assert sorted(now.let_go) == sorted(at.step.kept_back)


def test_who_trains_alone_tells_its_blocks_at_once() -> None:
    """Nobody fetches them, so a sum would only cost time."""
    at = trainer(4)
    made = batch(at)
    record = make(at, made, 2, 3)
    assert kept_back(at, made).tell == [record]
    assert block_duties(at, made).here != []


def test_a_host_that_leaves_hands_over_what_its_slots_made() -> None:
    """Kept back, it would go with the host."""
    at = trainer(4, (ME, OTHER))
    made = batch(at)
    first = blocks_of(at, made)[0][0]
    record = make(at, made, first, first + 1)
    assert kept_back(at, made, all_of_it=True).tell == [record]


def test_what_can_no_longer_be_summed_here_is_told_as_it_is() -> None:
    """Its other half went to somebody else: to wait for it would be to wait for ever."""
    at = trainer(4, (ME, OTHER))
    made = batch(at)
    first = blocks_of(at, made)[0][0]
    record = make(at, made, first, first + 1)
    rest = [TaskKey(0, made.training.stage, Block.of_leaf(leaf)) for leaf in range(LEAVES) if leaf != first]
    at.step.claim(at.now, who(OTHER), rest, at.now + 9.0)
    assert kept_back(at, made).tell == [record]


def test_a_sum_whose_parts_are_gone_is_made_of_leaves_again() -> None:
    """What was kept back and lost is like work that was never done."""
    at = trainer(4, (ME, OTHER))
    made = batch(at)
    before = blocks_of(at, made)
    record = make(at, made, *before[0])
    assert blocks_of(at, made) != before
    at.holdings.lose(record.shards[0].id)
    assert blocks_of(at, made) == before


def test_what_another_has_done_already_is_not_told_again() -> None:
    """Both did it: one of the two is enough, and the other is freed with the step."""
    at = trainer(4, (ME, OTHER))
    made = batch(at)
    first = blocks_of(at, made)[0][0]
    record = make(at, made, first, first + 1)
    theirs = replace(record, task=TaskKey(0, record.task.stage, Block(0, LEAVES)), outputs=(("gradient", shard("t")),))
    learn(at, theirs, holders=[OTHER])
    now = kept_back(at, made)
    assert (now.tell, now.let_go) == ([], [record.task])
    assert list(at.step.kept_back) == [record.task], "who asks changes nothing"


def test_leaves_are_dealt_by_slots() -> None:
    """A host that runs three at once has three times the share of one that runs one."""
    at = trainer(3, (ME, OTHER), others=1)
    made = batch(at)
    assert sum(end - first for first, end in blocks_of(at, made)) == 3
