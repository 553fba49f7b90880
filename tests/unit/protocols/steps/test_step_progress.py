"""Progress: what is kept of a step's partitions is always what its books and holders say, derived from scratch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dflow_protocols.events import Action
from dflow_protocols.names import MANIFEST, Partition, Slice, chunk_count
from dflow_protocols.steps.progress import Progress
from dflow_protocols.steps.sealing import is_missed, sealed_chains
from dflow_protocols.steps.step import MAX_PER_TASK
from dflow_protocols.steps.view import StepView
from dflow_protocols.wire.steps import Record, Seal
from tests.unit.protocols.books import SPEC, ZERO, finished_partition, later, learn, record, shard, view, who

READS = (ZERO.id, "m" * 64)  # a version, and a manifest
BLOCKS = [
    record("learn", block, reads, shard(f"{block}/{reads[0]}"))
    for block in ("b0-1", "b1-2", "b0-2", "b2-4", "b0-4")
    for reads in (READS, (ZERO.id, "n" * 64))
]
SLICES = (Slice(0, 1), Slice(1, 2))
REDUCED = [
    record("learn", str(part), reads, shard(f"{part}/{reads[1]}/{take}"))
    for part in SLICES
    for reads in (READS, (ZERO.id, "n" * 64))
    for take in "ab"
]
PARTITIONS = [each for p in range(3) for take in "ab" for each in finished_partition(p, take=take)]
RECORDS = [*PARTITIONS, *BLOCKS, *REDUCED]
SHARDS = [record.shards[0] for record in RECORDS]

changes = st.one_of(
    st.tuples(st.just("record"), st.sampled_from(RECORDS), st.booleans()),
    st.tuples(st.just("holder"), st.sampled_from(SHARDS), st.integers(1, 4)),
    st.tuples(st.just("here"), st.sampled_from(SHARDS)),
    st.tuples(st.just("lost"), st.sampled_from(SHARDS)),
    st.tuples(st.just("dropped"), st.lists(st.sampled_from(SHARDS), max_size=3)),
    st.tuples(st.just("lacking"), st.sampled_from(SHARDS), st.integers(2, 4)),
    st.tuples(st.just("silent"), st.sampled_from(SHARDS), st.integers(2, 4)),
    st.tuples(st.just("trusted")),
    st.tuples(st.just("known"), st.lists(st.sampled_from(SHARDS))),
    st.tuples(st.just("gone"), st.integers(2, 4)),
    st.tuples(st.just("living"), st.sets(st.integers(2, 4))),
    st.tuples(st.just("drained"), st.sets(st.integers(2, 4))),
)


def change(at: StepView, what: str, *of: Any) -> StepView:
    """One thing that may happen to a step's books, to who holds what, or to the members."""
    holdings, out = at.holdings, list[Action]()
    match what, *of:
        case "record", record, own:
            at.step.add(record, own)
        case "holder", ref, number:
            holdings.credit(who(number), [ref.id])
        case "here", ref:
            holdings.keep(ref)
        case "lost", ref:
            holdings.lose(ref.id)
        case "dropped", refs:
            holdings.drop([ref.id for ref in refs], out)
        case "lacking", ref, number:
            holdings.failed(at.now, ref.id, (0, chunk_count(ref.nbytes)), [who(number)], out)
        case "silent", ref, number:
            holdings.want(at.now, ref, at.living, out)
            holdings.failed(at.now, ref.id, (0, chunk_count(ref.nbytes)), [], out, [who(number)], at.now + 5)
        case ("trusted",):
            return later(at, at.now + 3)
        case "known", refs:
            holdings.know_only([ref.id for ref in refs])
        case "gone", number:
            holdings.forget(who(number))
            at.step.forget(who(number))
        case "living", numbers:
            return later(at, at.now, living=numbers | {1})
        case "drained", numbers:
            return replace(at, drained=frozenset(who(number) for number in numbers) & at.living)
    return at


def facts(at: StepView) -> tuple[object, ...]:
    """All that is kept, as it can be asked for."""
    chains = [at.progress_of(chain) for chain in at.plan.chains]
    return (
        [(found.done, found.unfinished) for found in chains],
        {name for name in at.progress.lost if name in at.step.by_id},
        sorted(part.index for part in at.progress.thin),
        set(at.progress.leaves(at.step, "learn", READS, at.counts)),
        at.progress.slices(at.step, "learn", SLICES, READS, at.counts),
    )


@settings(max_examples=300)
@given(st.lists(changes, max_size=25), st.integers(1, 5))
def test_what_is_kept_is_what_is_derived_from_scratch(happened: list[tuple[Any, ...]], ask_every: int) -> None:
    """It is asked for at any time, with any number of changes in between."""
    at = view(members=(1, 2, 3, 4))
    for number, what in enumerate(happened):
        at = change(at, *what)
        at.holdings.trust_again(at.now)
        if number % ask_every == 0:
            assert facts(at) == facts(replace(at, kept=Progress()))
    assert facts(at) == facts(replace(at, kept=Progress()))


def test_a_leaf_is_covered_while_a_block_that_read_this_manifest_counts() -> None:
    """Who looks what is left to train sees no leaf that somebody summed, alone or with others."""
    at = view()
    learn(at, record("learn", "b0-2", READS, shard("sum")), record("learn", "b1-2", READS, shard("leaf")), holders=(2,))
    learn(at, record("learn", "b2-4", (ZERO.id, "n" * 64), shard("other")), holders=(2,))

    def covered(at: StepView) -> set[int]:
        return set(at.progress.leaves(at.step, "learn", READS, at.counts))

    assert covered(at) == {0, 1}
    at.holdings.failed(at.now, shard("sum").id, (0, 1), [who(2)], [])
    assert covered(at) == {1}
    assert covered(later(at, 1.0, living=(1, 3))) == set()


def test_a_slice_is_made_while_a_record_that_read_this_manifest_counts() -> None:
    """Of several the smallest counts, as anywhere; what nobody holds any more is summed again."""
    at = view()
    two = [record("learn", "s0-1", READS, shard(take)) for take in "ab"]
    learn(at, *two, record("learn", "s1-2", (ZERO.id, "n" * 64), shard("other")), holders=(2,))
    first, second = sorted(two, key=lambda each: each.id)

    def made(at: StepView) -> tuple[Record | None, ...]:
        return at.progress.slices(at.step, "learn", SLICES, READS, at.counts)

    assert made(at) == (first, None)
    at.holdings.failed(at.now, first.shards[0].id, (0, 1), [who(2)], [])
    assert made(at) == (second, None)
    assert made(later(at, 1.0, living=(1, 3))) == (None, None)


def test_a_partition_is_thin_while_another_member_alone_holds_what_it_made() -> None:
    """A replica copies just those, and need not look at all others each time."""
    at = view()
    learn(at, *finished_partition(0), holders=(2,))
    learn(at, *finished_partition(1), holders=(2, 3))
    assert list(at.progress.thin) == [Partition(0)]
    learn(at, *finished_partition(0), holders=(3,))
    assert not at.progress.thin


def test_a_flood_of_records_pushes_none_out_that_a_seal_names() -> None:
    """Whether what a manifest names is still held is asked as long as it is open; what nobody holds has no say."""
    at = view()
    chains = sealed_chains(at, MANIFEST)
    entries = tuple(record for p in range(chains[0].partitions) for record in finished_partition(p))
    manifest = Seal(SPEC, 0, ZERO.id, ZERO.id, MANIFEST, 0, 0, entries)
    learn(at, *entries, holders=(2,))
    at.step.keep(manifest)
    task = entries[0].task
    for number in range(3 * MAX_PER_TASK):
        at.step.add(Record(task, (ZERO.id,), (("rollout", shard(f"flood/{number}")),), (), ()))
    assert entries[0].id in at.step.by_id
    assert not is_missed(at, manifest, None)
    assert is_missed(later(at, 1.0, living=(1, 3)), manifest, None)
