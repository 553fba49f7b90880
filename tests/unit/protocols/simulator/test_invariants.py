"""The checkers check: each way of mixing what does not belong together is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

import pytest

from dflow_protocols.events import FilesFound
from dflow_protocols.names import CHUNK_BYTES, Partition, RunId, ShardRef, SpecId, TaskKey, VersionId, chunk_count
from dflow_protocols.ranges import RANGE_BYTES, State, pieces, shards_of
from dflow_protocols.simulator.invariants import check_bytes, check_chain, check_files, check_header, check_work
from dflow_protocols.simulator.model.provenance import ALIKE, PARAMETER_BYTES, Ledger
from dflow_protocols.simulator.model.work import NOISY, PURE, Engines
from dflow_protocols.simulator.parameters import check_sampled
from dflow_protocols.simulator.sealed import SealCheck
from dflow_protocols.simulator.toy import (
    TOY_LEAVES,
    TOY_PARTITIONS,
    actor_critic,
    two_steps,
    with_async,
    with_old_policy,
)
from dflow_protocols.steps.reduction import cut_leaves
from dflow_protocols.wire.fields import MAX_FRAME_BYTES
from dflow_protocols.wire.frame import Frame
from dflow_protocols.wire.steps import Header, Record, RunPut, Seal
from dflow_protocols.work import ApplyWork, BlockWork, ChainWork, Groups, InitWork, SliceWork
from tests.unit.protocols.wire.vectors import example

STAGES = ("roll", "score", "adv")
RUN = RunId("a" * 32)
Sum = tuple[int, int, tuple[ShardRef, ...]]  # a block of leaves, and its gradient's shards


class OneStep:
    """A step as one honest node does it, piece by piece, each piece checked."""

    def __init__(self, noise: frozenset[type] = PURE, range_bytes: int = RANGE_BYTES) -> None:
        self.engines = Engines(Ledger(), two_steps(), noise, Random(0))
        self.state: State = self.engines.run(InitWork(range_bytes)).made[0].outputs

    def records(self, step: int = 0) -> dict[tuple[str, int], Record]:
        """One whole execution of all partitions' chains."""
        records = {}
        for partition in range(TOY_PARTITIONS):
            work = ChainWork(step, STAGES, partition, self.params())
            check_work(self.engines, work)
            read: tuple[str, ...] = ("v",)
            for made in self.engines.run(work).made:
                task = TaskKey(step, made.stage, Partition(partition))
                records[made.stage, partition] = Record(task, read, made.outputs, made.groups, made.metrics)
                read += tuple(ref.id for _, ref in made.outputs)
        return records

    def params(self) -> State:
        return tuple(entry for entry in self.state if entry[0].startswith("params:"))

    def block(self, records: dict[tuple[str, int], Record], first: int, end: int, step: int = 0) -> BlockWork:
        groups = tuple(records["adv", partition].groups for partition in range(TOY_PARTITIONS))
        leaves = tuple(leaf for leaf in cut_leaves(groups, TOY_LEAVES) if first <= leaf.leaf < end)
        reads = [("roll", "rollout"), ("adv", "advantage")]
        inputs = tuple(
            (p, f"{stage}.{name}", records[stage, p].outputs[0][1])
            for p in range(TOY_PARTITIONS)
            for stage, name in reads
        )
        return BlockWork(step, "learn", first, end, leaves, inputs, self.params())

    def sum(self, work: BlockWork) -> Sum:
        check_work(self.engines, work)
        return work.first, work.end, shards_of(self.engines.run(work).made[0].outputs, "gradient")

    def slice(self, cover: tuple[Sum, ...], chunks: tuple[int, int], divisor: int, step: int = 0) -> ShardRef:
        covered = tuple((first, end, pieces(refs, *chunks)) for first, end, refs in cover)
        work = SliceWork(step, "learn", *chunks, TOY_LEAVES, covered, divisor)
        check_work(self.engines, work)
        return self.engines.run(work).made[0].outputs[0][1]

    def apply(self, slices: tuple[ShardRef, ...], step: int = 0, state: State | None = None) -> State:
        work = ApplyWork(step, "learn", state or self.state, slices, step, 2, step == 0)
        check_work(self.engines, work)
        return self.engines.run(work).made[0].outputs


def tokens(records: dict[tuple[str, int], Record]) -> int:
    return sum(count for (stage, _), record in records.items() if stage == "adv" for count, _ in record.groups)


WHOLE = (0, chunk_count(PARAMETER_BYTES))


def test_pure_engines_make_one_slice_of_any_cover() -> None:
    """The fixed tree: weights must not depend on who summed what."""
    honest = OneStep()
    records = honest.records()
    covers = [((0, 4),), ((0, 2), (2, 4)), ((0, 1), (1, 2), (2, 4))]
    made = {
        honest.slice(tuple(honest.sum(honest.block(records, *block)) for block in cover), WHOLE, tokens(records))
        for cover in covers
    }
    assert len(made) == 1


@pytest.mark.parametrize("range_bytes", [RANGE_BYTES, CHUNK_BYTES], ids=["whole", "in ranges"])
def test_two_honest_steps_make_a_chain(range_bytes: int) -> None:
    """Nothing that is right is called wrong; in halves and by two slices, of one shard a role or several."""
    honest = OneStep(NOISY, range_bytes)
    for step in range(2):
        records = honest.records(step)
        cover = tuple(honest.sum(honest.block(records, *block, step)) for block in ((0, 2), (2, 4)))
        slices = tuple(honest.slice(cover, chunks, tokens(records), step) for chunks in ((0, 1), (1, 3)))
        honest.state = honest.apply(slices, step)
    check_chain(honest.engines, honest.state)


@pytest.mark.parametrize("is_of_another", [False, True])
def test_rollouts_of_another_branch_of_any_model_are_found(is_of_another: bool) -> None:
    """A critic has branches as the policy has: two updates of it that summed other slices."""
    engines = Engines(Ledger(), with_async(with_old_policy(actor_critic()), 1), PURE, Random(0))
    state = engines.run(InitWork(RANGE_BYTES)).made[0].outputs
    slices = tuple(ref for _, ref in state[:2])
    sampled, other = (engines.run(ApplyWork(0, "critic", state, (ref,), 0, 4, True)).made[0].outputs for ref in slices)

    def params(of: State, *models: str) -> State:
        return tuple(entry for entry in of if entry[0] in {f"params:{model}" for model in models})

    step, stages = engines.pipeline.schedule.first(1), ("roll", "old", "score", "value", "adv")
    engines.run(ChainWork(step, stages, 0, params(sampled, "critic", "policy")))
    given = tuple(engines.ledger.made_by("roll", step, str(engines.pipeline.id)))
    trained = params(other if is_of_another else sampled, "critic")
    work = BlockWork(step, "critic", 0, 4, (), (), trained)
    if is_of_another:
        with pytest.raises(AssertionError, match="trains `critic` on rollouts of another branch"):
            check_sampled(engines, work, given)
    else:
        check_sampled(engines, work, given)


def one_step_and_outputs_of_another(keep_none: bool) -> OneStep:
    honest = OneStep()
    records = honest.records(0)
    honest.state = honest.apply((honest.slice((honest.sum(honest.block(records, 0, 4)),), WHOLE, tokens(records)),))
    if keep_none:
        honest.engines._groups = partial(_without_tokens, honest.engines._groups)  # type: ignore[method-assign]
    honest.records(1)
    return honest


def test_a_step_that_keeps_no_group_changes_nothing_and_one_that_keeps_some_may_not_be_left_out() -> None:
    """Where all groups are alike there is nothing to learn, and the version goes on with the parameters that it has."""
    idle, hasty = (one_step_and_outputs_of_another(keep_none) for keep_none in (True, False))
    check_chain(idle.engines, idle.state)
    with pytest.raises(AssertionError, match=r"passed the updates \[0\], not \[0, 1\]"):
        check_chain(hasty.engines, hasty.state)


@pytest.mark.parametrize("left_out", [None, 10])
def test_many_updates_that_change_no_byte_are_checked_at_once(left_out: int | None) -> None:
    """One shard came of each of them then, and as many ways lead to it as there are sets of updates."""
    steps = 40
    engines = Engines(Ledger(ALIKE), replace(two_steps(), steps=steps), PURE, Random(0))
    state = engines.run(InitWork()).made[0].outputs
    for step in range(steps):
        if step != left_out:
            state = engines.run(ApplyWork(step, "learn", state, (), step, steps, True)).made[0].outputs
    if left_out is None:
        check_chain(engines, state)
        return
    with pytest.raises(AssertionError, match="passed the updates"):
        check_chain(engines, state)


def _without_tokens(kept: Callable[..., Groups], *arguments: Any) -> Groups:
    return tuple((0, 0) for _ in kept(*arguments))


def _another_rollout(honest: OneStep) -> None:
    records, again = honest.records(), honest.records()
    records["roll", 1] = again["roll", 1]
    honest.sum(honest.block(records, 0, 4))


def _blocks_of_two_executions(honest: OneStep) -> None:
    records, again = honest.records(), honest.records()
    cover = (honest.sum(honest.block(records, 0, 2)), honest.sum(honest.block(again, 2, 4)))
    honest.slice(cover, WHOLE, tokens(records))


def _a_leaf_twice(honest: OneStep) -> None:
    records = honest.records()
    honest.slice((honest.sum(honest.block(records, 0, 4)),) * 2, WHOLE, tokens(records))


def _a_leaf_left_out(honest: OneStep) -> None:
    records = honest.records()
    honest.slice((honest.sum(honest.block(records, 0, 2)),), WHOLE, tokens(records))


def _a_wrong_divisor(honest: OneStep) -> None:
    records = honest.records()
    honest.slice((honest.sum(honest.block(records, 0, 4)),), WHOLE, tokens(records) + 1)


def _slices_of_two_manifests(honest: OneStep) -> None:
    slices = []
    for chunks in ((0, 1), (1, 3)):
        records = honest.records()
        slices.append(honest.slice((honest.sum(honest.block(records, 0, 4)),), chunks, tokens(records)))
    honest.apply(tuple(slices))


def _a_slice_left_out(honest: OneStep) -> None:
    records = honest.records()
    honest.apply((honest.slice((honest.sum(honest.block(records, 0, 4)),), (0, 2), tokens(records)),))


def _an_update_applied_twice(honest: OneStep) -> None:
    records = honest.records()
    whole = honest.slice((honest.sum(honest.block(records, 0, 4)),), WHOLE, tokens(records))
    after = honest.apply((whole,))
    honest.apply((whole,), state=after)


def _moments_of_another_update(honest: OneStep) -> None:
    states = []
    for _ in range(2):
        records = honest.records()
        whole = honest.slice((honest.sum(honest.block(records, 0, 4)),), WHOLE, tokens(records))
        states.append(dict(honest.apply((whole,))))
    honest.state = tuple(sorted((states[0] | {"optimizer:learn": states[1]["optimizer:learn"]}).items()))
    records = honest.records(1)
    whole = honest.slice((honest.sum(honest.block(records, 0, 4, 1)),), WHOLE, tokens(records), 1)
    honest.apply((whole,), 1)


def _chunks_of_two_sums(honest: OneStep) -> None:
    (first, end, refs), (_, _, others) = (honest.sum(honest.block(honest.records(), 0, 4)) for _ in range(2))
    honest.slice(((first, end, (refs[0], *others[1:])),), WHOLE, 1)


def _chunks_in_another_order(honest: OneStep) -> None:
    records = honest.records()
    first, end, refs = honest.sum(honest.block(records, 0, 4))
    honest.slice(((first, end, (refs[1], refs[0], refs[2])),), WHOLE, tokens(records))


def _a_range_of_another_update(honest: OneStep) -> None:
    states = []
    for _ in range(2):
        records = honest.records()
        whole = honest.slice((honest.sum(honest.block(records, 0, 4)),), WHOLE, tokens(records))
        states.append(honest.apply((whole,)))
    mixed = tuple(entry if place % 2 else other for place, (entry, other) in enumerate(zip(*states, strict=True)))
    records = honest.records(1)
    whole = honest.slice((honest.sum(honest.block(records, 0, 4, 1)),), WHOLE, tokens(records), 1)
    honest.apply((whole,), 1, mixed)


@pytest.mark.parametrize("mix", [_chunks_of_two_sums, _chunks_in_another_order, _a_range_of_another_update])
def test_shards_of_one_role_that_do_not_belong_together_are_found(mix: Callable[[OneStep], None]) -> None:
    """A state in several shards can be mixed where one in a single shard cannot."""
    with pytest.raises(AssertionError):
        mix(OneStep(NOISY, CHUNK_BYTES))


@pytest.mark.parametrize(
    "mix",
    [
        _another_rollout,
        _blocks_of_two_executions,
        _a_leaf_twice,
        _a_leaf_left_out,
        _a_wrong_divisor,
        _slices_of_two_manifests,
        _a_slice_left_out,
        _an_update_applied_twice,
        _moments_of_another_update,
    ],
)
def test_whatever_is_mixed_is_found(mix: Callable[[OneStep], None]) -> None:
    """A checker that finds nothing proves nothing."""
    with pytest.raises(AssertionError):
        mix(OneStep(NOISY))


def test_a_seal_that_lies_is_found() -> None:
    """A manifest over two executions of one partition, and one that leaves a partition out."""
    honest = OneStep(NOISY)
    records, again = honest.records(), honest.records()
    seal = Seal(SpecId("s"), 0, VersionId("v"), "v", "manifest", 0, 0, tuple(records.values()))
    SealCheck().check(seal, honest.engines)
    mixed = {**records, ("roll", 0): again["roll", 0]}
    with pytest.raises(AssertionError, match="not made from"):
        SealCheck().check(replace(seal, entries=tuple(mixed.values())), honest.engines)
    with pytest.raises(AssertionError, match="lists 14 of 15"):
        SealCheck().check(replace(seal, entries=tuple(records.values())[1:]), honest.engines)


def test_a_version_that_lies_about_its_samples_is_found() -> None:
    """Fork choice goes by samples: a version that claims more would win over honest ones."""
    honest = OneStep(NOISY)
    records = honest.records()
    whole = honest.slice((honest.sum(honest.block(records, 0, 4)),), WHOLE, tokens(records))
    state = honest.apply((whole,))
    samples = sum(count for record in records.values() for _, count in record.groups)
    check_header(honest.engines, Header(VersionId("v"), 1, samples, "s", state))
    with pytest.raises(AssertionError, match="trained were"):
        check_header(honest.engines, Header(VersionId("v"), 1, samples + 4, "s", state))
    with pytest.raises(AssertionError, match="passed the updates"):
        check_header(honest.engines, Header(VersionId("v"), 2, samples, "s", state))


def test_a_work_that_opens_files_starts_where_they_lie_and_where_all_that_is_left_may_run() -> None:
    """And what is done on shards alone starts anywhere."""
    engines = OneStep().engines
    chain = ChainWork(0, ("score",), 0, ())
    for work in (chain, InitWork()):
        check_files(engines, work, FilesFound(RUN))
        with pytest.raises(AssertionError, match="without the run's files"):
            check_files(engines, work, FilesFound(RUN, "a disk went"))
    check_files(engines, chain, FilesFound(RUN, refused=("roll",)))
    with pytest.raises(AssertionError, match="refused"):
        check_files(engines, chain, FilesFound(RUN, refused=("adv",)))
    check_files(engines, SliceWork(0, "learn", 0, 1, 4, (), 1), FilesFound(RUN, "a disk went", ("learn",)))


def test_what_no_frame_takes_is_looked_at_message_by_message() -> None:
    """So daemons send it: a replica of hundreds of members may have more to tell one of them in a turn than fits."""
    long = replace(example(RunPut), spec=bytes(1 << 20))
    check_bytes(Frame(None, (long,) * 4))
    with pytest.raises(ValueError, match="send its messages apart"):
        check_bytes(Frame(None, (replace(long, spec=bytes(MAX_FRAME_BYTES)),)))
