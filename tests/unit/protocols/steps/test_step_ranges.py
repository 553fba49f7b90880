"""What is too long for one shard: where it is cut, and where a slice of it lies."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from dflow_protocols.names import CHUNK_BYTES, ShardRef, chunk_count
from dflow_protocols.ranges import (
    RANGE_BYTES,
    SHARD_BYTES,
    cut,
    gradient_sizes,
    in_order,
    is_cut,
    pieces,
    range_bytes,
    shards_of,
)
from dflow_protocols.simulator.toy import TOY_PARTITIONS, two_steps, with_bfloat16
from dflow_protocols.steps.batch import gradient_slices, make_batch
from dflow_protocols.steps.duties import slice_duties
from dflow_protocols.wire.bulk import MAX_CHUNKS
from dflow_protocols.wire.steps import Header, Record, Seal
from dflow_protocols.work import SliceWork
from tests.unit.protocols.books import SPEC, ZERO, finished_partition, learn, record, shard, view

SIZES = st.integers(1, 40 * CHUNK_BYTES)
BOUNDS = st.integers(1, 9).map(lambda chunks: chunks * CHUNK_BYTES)


@given(SIZES, BOUNDS)
def test_ranges_are_whole_chunks_in_order_and_together_all_of_it(nbytes: int, bound: int) -> None:
    """One while it fits, so that small models keep the names they have."""
    sizes = cut(nbytes, bound)
    assert sum(sizes) == nbytes
    assert max(sizes) <= bound
    assert (len(sizes) == 1) == (nbytes <= bound)
    assert is_cut(sizes)


@given(SIZES, BOUNDS, st.data())
def test_any_chunks_are_found_in_the_shards_that_have_them(nbytes: int, bound: int, data: st.DataObject) -> None:
    """A slice may lie across a border; each of its chunks is read once, in order."""
    refs = [shard(str(part), size) for part, size in enumerate(cut(nbytes, bound))]
    starts = dict(zip(refs, accumulate((chunk_count(ref.nbytes) for ref in refs), initial=0), strict=False))
    first = data.draw(st.integers(0, chunk_count(nbytes) - 1))
    end = data.draw(st.integers(first + 1, chunk_count(nbytes)))
    found = [starts[ref] + chunk for ref, low, high in pieces(refs, first, end) for chunk in range(low, high)]
    assert found == list(range(first, end))
    assert all(0 <= low < high <= chunk_count(ref.nbytes) for ref, low, high in pieces(refs, first, end))


def test_roles_are_sorted_and_their_shards_stay_in_order() -> None:
    """By name alone: the ids of shards say nothing of their order."""
    state = in_order([("params:b", shard("z")), ("params:b", shard("a")), ("optimizer:x", shard("m"))])
    assert [name for name, _ in state] == ["optimizer:x", "params:b", "params:b"]
    assert shards_of(state, "params:b") == (shard("z"), shard("a"))
    assert shards_of(state, "params:c") == ()


def test_a_shard_of_a_state_can_be_fetched() -> None:
    """Moments are twice as long as their parameters, and no peer takes more than so many chunks."""
    assert range_bytes(two_steps()) == RANGE_BYTES
    assert chunk_count(2 * RANGE_BYTES) == chunk_count(SHARD_BYTES) <= MAX_CHUNKS


def test_a_shard_of_a_gradient_of_half_the_bytes_is_whole_chunks() -> None:
    """So that a slice of it is whole chunks of the parameters, too."""
    odd = two_steps(range_bytes=3 * CHUNK_BYTES)
    assert range_bytes(odd) == 3 * CHUNK_BYTES
    bound = range_bytes(with_bfloat16(odd))
    assert bound == 4 * CHUNK_BYTES
    params = [shard(str(part), size) for part, size in enumerate(cut(9 * CHUNK_BYTES + 4, bound))]
    assert gradient_sizes(params, 2) == (2 * CHUNK_BYTES, 2 * CHUNK_BYTES, CHUNK_BYTES // 2 + 2)


def test_a_slice_across_a_border_reads_both_shards_of_every_block() -> None:
    """Its border follows from the model alone, that of shards from how long one may be."""
    parts = [3 * CHUNK_BYTES] * 33 + [CHUNK_BYTES - 4]  # a hundred chunks in 16 slices, of six and of seven
    state = tuple(("params:policy", shard(f"p{k}", size)) for k, size in enumerate(parts))
    header = Header(None, 0, 0, SPEC, state)
    at = view(header=header)
    chains = [finished_partition(partition, header.id) for partition in range(TOY_PARTITIONS)]
    entries = tuple(each for chain in chains for each in chain)
    learn(at, *entries)
    seal = Seal(SPEC, 0, header.id, header.id, "manifest", 0, 0, entries)
    assert at.training is not None
    batch = make_batch(seal, at.training)
    blocks = [_gradient(f"b{first}-{first + 2}", parts, header, seal) for first in (0, 2)]
    learn(at, *blocks)
    seen: dict[ShardRef, list[int]] = {}
    for chunks in gradient_slices(at, batch):
        for ref, low, high in pieces(blocks[0].shards, chunks.first, chunks.end):
            seen.setdefault(ref, []).extend(range(low, high))
    assert seen == {ref: list(range(chunk_count(ref.nbytes))) for ref in blocks[0].shards}
    duties = slice_duties(at, batch).here
    assert duties
    crossing = 0
    for duty in duties:
        assert isinstance(duty.work, SliceWork)
        (_, _, one), (_, _, other) = duty.work.cover
        assert [piece[1:] for piece in one] == [piece[1:] for piece in other]
        assert duty.needs == tuple((ref, (first, end)) for ref, first, end in (*one, *other))
        crossing += len(one) > 1
    assert crossing


def _gradient(part: str, sizes: list[int], header: Header, seal: Seal) -> Record:
    return record("learn", part, [header.id, seal.id], *(shard(f"{part}/{k}", size) for k, size in enumerate(sizes)))


def test_a_model_of_one_shard_has_the_names_it_had() -> None:
    """The version's id hashes roles and shards: a small model's is what it was when a role was one shard by rule."""
    assert [name for name, _ in ZERO.state] == ["optimizer:learn", "params:policy"]
    assert in_order(reversed(ZERO.state)) == ZERO.state
