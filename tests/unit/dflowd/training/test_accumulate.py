"""The tree of gradients is one tree, whoever sums which part of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflowd.training.accumulate import BlockStack, Finisher, HostMemory, Stored, Tree, Vector
from dflowd.training.bfloat16 import rounded

LEAVES, WIDTH = 8, 50


def tree(
    leaves: list[Vector | None], first: int, end: int, kept: Callable[[Vector], Vector] = lambda total: total
) -> Vector | None:
    """S[a, a+2m) = S[a, a+m) + S[a+m, a+2m), as the definition says it. `kept`: what is kept of a node."""
    if end - first == 1:
        leaf = leaves[first]
        return None if leaf is None else kept(leaf)
    left, right = tree(leaves, first, (first + end) // 2, kept), tree(leaves, (first + end) // 2, end, kept)
    if left is None or right is None:
        return right if left is None else left
    return kept(left + right)


def block(leaves: list[Vector | None], first: int, end: int) -> Vector | None:
    memory = HostMemory(WIDTH)
    stack = BlockStack(first, end, memory)
    for leaf in leaves[first:end]:
        stack.push(None if leaf is None else leaf.copy())
    ((_, _, total),) = stack.blocks()
    if total is not None:
        memory.write(total, total)
    return total


@st.composite
def covers(draw: st.DrawFn, first: int = 0, end: int = LEAVES) -> list[tuple[int, int]]:
    if end - first == 1 or draw(st.booleans()):
        return [(first, end)]
    middle = (first + end) // 2
    return [*draw(covers(first, middle)), *draw(covers(middle, end))]


def gradients(seed: int, absent: set[int], count: int = LEAVES) -> list[Vector | None]:
    """Values of many sizes, among them zeros of both signs, so that any other order of additions shows."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, WIDTH)).astype(np.float32) * 10.0 ** rng.integers(-6, 6, (count, WIDTH))
    values[rng.random((count, WIDTH)) < 0.3] = -0.0
    return [None if leaf in absent else values[leaf].astype(np.float32) for leaf in range(count)]


class Counting(HostMemory):
    """Tells how many vectors were needed at once."""

    allocated = 0

    def blank(self) -> Vector:
        self.allocated += not self._spare
        return super().blank()


@given(covers(), st.integers(0, 1000), st.sets(st.integers(0, LEAVES - 1), max_size=LEAVES - 1))
def test_any_cover_finishes_to_the_same_bits(cover: list[tuple[int, int]], seed: int, absent: set[int]) -> None:
    """Nodes of any number sum what they happen to; the weights must not show it."""
    leaves = gradients(seed, absent)
    blocks = {(first, end): block(leaves, first, end) for first, end in cover}
    finisher = Finisher()
    finisher.finish({(0, LEAVES): np.full(2 * WIDTH, np.nan, np.float32)}, LEAVES)  # its memory shows in nothing later
    found = finisher.finish({place: total for place, total in blocks.items() if total is not None}, LEAVES)
    whole = tree(leaves, 0, LEAVES)
    assert whole is not None
    assert found.tobytes() == (whole + np.float32(0)).tobytes()


@given(covers(), st.integers(0, 1000), st.sets(st.integers(0, LEAVES - 1), max_size=LEAVES - 1))
def test_any_cover_of_bfloat16_finishes_to_the_same_bits(
    cover: list[tuple[int, int]], seed: int, absent: set[int]
) -> None:
    """Each node of the tree is rounded, whether it is published or not."""
    leaves = gradients(seed, absent)
    blocks: dict[tuple[int, int], Stored] = {}
    for first, end in cover:
        memory, room = HostMemory(WIDTH), np.empty(WIDTH, np.uint16)
        stack = BlockStack(first, end, memory, is_rounded=True)
        for leaf in leaves[first:end]:
            stack.push(None if leaf is None else leaf.copy())
        ((_, _, total),) = stack.blocks()
        if total is not None:
            memory.write(total, room)
            blocks[first, end] = room
    whole = tree(leaves, 0, LEAVES, rounded)
    assert whole is not None
    assert Finisher().finish(blocks, LEAVES).tobytes() == (whole + np.float32(0)).tobytes()


def test_a_block_of_zeros_adds_nothing() -> None:
    """A node may publish an empty block; it must count like an absent one."""
    leaves = gradients(5, {4, 5, 6, 7})
    upper = np.zeros(WIDTH, np.float32)
    lower = block(leaves, 0, 4)
    assert lower is not None
    alone = Finisher().finish({(0, 4): lower}, LEAVES)
    assert Finisher().finish({(0, 4): lower, (4, 8): upper}, LEAVES).tobytes() == alone.tobytes()


def test_at_most_one_gradient_more_than_the_trees_depth_is_alive() -> None:
    """Memory of a trainer is bounded by log2 of the leaves, not by their number."""
    made = Counting(3)
    stack = BlockStack(0, 64, made)
    for _ in range(64):
        stack.push(made.blank())
    assert made.allocated == 7


@pytest.mark.parametrize(("count", "most"), [(1, 1), (2, 1), (3, 2), (6, 2), (7, 3), (8, 3), (11, 3), (64, 6)])
def test_micro_batches_of_a_leaf_take_the_logarithm_of_half_as_many_vectors(count: int, most: int) -> None:
    """An engine holds no more than a plan of its memory says: a pair is summed by the passes themselves."""
    made = Counting(3)
    tree = Tree(made)
    for _ in range(count):
        tree.end(tree.begin())
    tree.root()
    assert made.allocated == most == 1 + int(math.log2((count + 1) // 2))


@given(st.integers(1, 20), st.integers(0, 1000), st.sets(st.integers(0, 19)))
def test_what_passes_add_to_is_summed_by_the_same_tree(count: int, seed: int, absent: set[int]) -> None:
    """Which half of a pair a pass adds to is a matter of memory; a leaf that devices share has the same sum."""
    made = gradients(seed, absent, 32)[:count] + [None] * (32 - count)
    memory = HostMemory(WIDTH)
    whole = Tree(memory)
    for gradient in made[:count]:
        if gradient is None:
            whole.push(None)
            continue
        vector = whole.begin()
        memory.values(vector)[:] += gradient
        whole.end(vector)
    found, expected = whole.root(), tree(made, 0, 32)
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        assert np.array_equal(found, expected)


@pytest.mark.parametrize(("first", "end"), [(0, 3), (1, 3), (2, 6), (4, 4)])
def test_only_aligned_blocks_are_nodes_of_the_tree(first: int, end: int) -> None:
    """Anything else would sum in an order of its own."""
    with pytest.raises(ValueError, match="aligned"):
        BlockStack(first, end, HostMemory(1))


@pytest.mark.parametrize("cover", [[], [(0, 4), (2, 4)], [(1, 3)]])
def test_what_is_no_disjoint_part_of_the_tree_is_refused(cover: list[tuple[int, int]]) -> None:
    """A leaf counted twice, or none, must never become an update."""
    blocks = {place: np.ones(4, np.float32) for place in cover}
    with pytest.raises(ValueError, match="tree"):
        Finisher().finish(blocks, LEAVES)


def test_the_sum_comes_to_lie_in_the_memory_that_was_lent() -> None:
    """An engine lends the room of its output, so that the biggest arrays there are need no copy."""
    room = np.full(4, np.nan, np.float32)
    memory = HostMemory(4)
    memory.lend(room)
    stack = BlockStack(0, 4, memory)
    for value in (None, 1, 2, 3):
        gradient = None if value is None else memory.blank()
        if gradient is not None and value is not None:
            gradient += np.float32(value)
        stack.push(gradient)
    ((_, _, total),) = stack.blocks()
    assert total is not None
    assert memory.lies_in(total, room)
    assert room.tolist() == [6.0] * 4
