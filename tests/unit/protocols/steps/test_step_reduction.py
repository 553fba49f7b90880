"""Leaves, blocks, covers, slices: arithmetic that no id may find different on two nodes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow_protocols.names import CHUNK_BYTES, Block, chunk_count
from dflow_protocols.ranges import MAX_RANGES, RANGE_BYTES
from dflow_protocols.steps.reduction import SLICES, aligned_blocks, cover, cut_leaves, slices
from dflow_protocols.work import Groups

GROUPS = st.one_of(st.just((0, 0)), st.tuples(st.integers(1, 60), st.integers(1, 8)))
PARTITIONS = st.lists(st.lists(GROUPS, max_size=6).map(tuple), min_size=1, max_size=6).map(tuple)
POWERS = st.sampled_from([1, 2, 4, 8, 16])


def total(partitions: tuple[Groups, ...]) -> int:
    return sum(tokens for groups in partitions for tokens, _ in groups)


@given(PARTITIONS.filter(total), POWERS)
def test_every_kept_group_is_in_one_leaf_in_order(partitions: tuple[Groups, ...], leaves: int) -> None:
    """Trained exactly once: no group is lost between leaves or counted in two, and dropped ones are in none."""
    cut = cut_leaves(partitions, leaves)
    seen = [(p, group) for leaf in cut for p, first, end in leaf.pieces for group in range(first, end)]
    kept = [(p, g) for p, groups in enumerate(partitions) for g, (tokens, _) in enumerate(groups) if tokens]
    assert seen == kept
    numbers = [leaf.leaf for leaf in cut]
    assert numbers == sorted(set(numbers))
    assert set(numbers) <= set(range(leaves))


@given(PARTITIONS.filter(total), POWERS)
def test_leaves_are_balanced_by_tokens(partitions: tuple[Groups, ...], leaves: int) -> None:
    """No leaf has more than its share and one group: a step waits for the slowest."""
    longest = max(tokens for groups in partitions for tokens, _ in groups)
    for leaf in cut_leaves(partitions, leaves):
        tokens = sum(partitions[p][g][0] for p, first, end in leaf.pieces for g in range(first, end))
        assert tokens <= total(partitions) / leaves + longest


@given(st.sets(st.integers(0, 63)))
def test_blocks_are_aligned_disjoint_and_hold_just_these_leaves(leaves: set[int]) -> None:
    """Only aligned blocks are nodes of the fixed tree: any other sum would have other bits."""
    blocks = list(aligned_blocks(sorted(leaves)))
    assert [leaf for block in blocks for leaf in block.leaves] == sorted(leaves)
    for block in blocks:
        size = len(block.leaves)
        assert size & (size - 1) == 0
        assert block.first % size == 0
    for left, right in pairwise(blocks):
        size = len(left.leaves)
        are_halves = left.end == right.first and size == len(right.leaves) and left.first % (2 * size) == 0
        assert not are_halves, "two halves of one block"


def random_blocks(draw: st.DrawFn, first: int, end: int) -> list[Block]:
    """A disjoint cover of [first, end) by aligned blocks."""
    if end - first == 1 or draw(st.booleans()):
        return [Block(first, end)]
    middle = (first + end) // 2
    return random_blocks(draw, first, middle) + random_blocks(draw, middle, end)


covers = st.composite(lambda draw, leaves: random_blocks(draw, 0, leaves))


@given(POWERS, st.data())
def test_any_blocks_that_hold_all_leaves_give_a_disjoint_cover_in_order(leaves: int, data: st.DataObject) -> None:
    """Two nodes may have summed the same leaves in blocks of different sizes: each leaf is counted once."""
    known = {*data.draw(covers(leaves)), *data.draw(covers(leaves))}
    found = cover(Block(0, leaves), range(leaves), lambda block: block if block in known else None)
    assert found is not None
    assert all(block in known for block, _ in found)
    assert [leaf for block, _ in found for leaf in block.leaves] == list(range(leaves))


@given(POWERS, st.data())
def test_there_is_no_cover_exactly_if_a_needed_leaf_is_missing(leaves: int, data: st.DataObject) -> None:
    """A leaf without groups needs no block; one with groups must never be left out of the sum."""
    blocks = data.draw(covers(leaves))
    known = set(data.draw(st.lists(st.sampled_from(blocks), unique=True)))
    needed = data.draw(st.sets(st.integers(0, leaves - 1)))
    found = cover(Block(0, leaves), needed, lambda block: block if block in known else None)
    there = {leaf for block in known for leaf in block.leaves}
    assert (found is None) == (not needed <= there)
    if found is not None:
        held = [leaf for block, _ in found for leaf in block.leaves]
        assert held == sorted(set(held))
        assert needed <= set(held)


@given(st.integers(1, 300 * CHUNK_BYTES), st.sampled_from([1 << k for k in range(8)]))
def test_slices_are_whole_chunks_and_together_the_gradient(nbytes: int, leaves: int) -> None:
    """Their borders follow from the length and the leaves alone, whoever owns them."""
    cut = slices(nbytes, leaves)
    assert [chunk for piece in cut for chunk in range(piece.first, piece.end)] == list(range(chunk_count(nbytes)))
    assert len(cut) <= SLICES
    lengths = [piece.end - piece.first for piece in cut]
    assert 0 < min(lengths) <= max(lengths) <= min(lengths) + 1


def test_no_slice_of_a_huge_model_is_longer_than_a_range_of_its_parameters() -> None:
    """A slice is a shard, too; the largest model that can be has as many slices as ranges."""
    cut = slices(MAX_RANGES * RANGE_BYTES, 1)
    assert len(cut) == MAX_RANGES
    assert {piece.end - piece.first for piece in cut} == {RANGE_BYTES // CHUNK_BYTES}


@pytest.mark.parametrize("leaves", [1, 2, 4, 8, 16])
def test_as_many_trainers_as_leaves_have_nearly_equal_shares_of_the_slices(leaves: int) -> None:
    """More slices than that would cost every node records, claims and calls, and nobody's share would be smaller."""
    cut = slices(1000 * CHUNK_BYTES, leaves)
    most = max(-(-len(cut) // trainers) * trainers for trainers in range(1, leaves + 1))
    assert most <= 1.25 * len(cut)
    assert len(cut) == max(16, 4 * leaves)
