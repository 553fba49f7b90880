"""Gradient reduction: leaves, aligned blocks, covers, slices. Pure arithmetic; no id here depends on who takes part.

The tree is fixed: S[a, a+2m) = S[a, a+m) + S[a+m, a+2m) over V = 2^k leaves, one float32 addition an element; a leaf
without groups adds nothing. Any disjoint cover by aligned blocks ends in the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from functools import lru_cache
from typing import TypeVar

from ..names import Block, Slice, chunk_count
from ..ranges import RANGE_BYTES, cut
from ..work import Groups, LeafGroups

SLICES = 64  # of one gradient at most: enough to spread over any roster's trainers, few enough to list in a seal
SLICES_A_LEAF = 4  # so that as many trainers as there are leaves have nearly equal shares; each further one costs all
FEWEST_SLICES = 16  # where leaves are few: those who have no leaf share in the slices

B = TypeVar("B")


@lru_cache(maxsize=64)
def cut_leaves(partitions: tuple[Groups, ...], leaves: int) -> tuple[LeafGroups, ...]:
    """Contiguous runs of the kept groups in (partition, group) order, cut by tokens; leaves without groups are absent.

    A group belongs to the leaf into whose share of the tokens its first token falls.
    """
    total = sum(tokens for groups in partitions for tokens, _ in groups)
    pieces: dict[int, list[tuple[int, int, int]]] = {}
    before = 0
    for partition, groups in enumerate(partitions):
        for group, (tokens, _) in enumerate(groups):
            if not tokens:
                continue
            run = pieces.setdefault(before * leaves // total, [])
            if run and run[-1][0] == partition and run[-1][2] == group:
                run[-1] = (partition, run[-1][1], group + 1)
            else:
                run.append((partition, group, group + 1))
            before += tokens
    return tuple(LeafGroups(leaf, tuple(run)) for leaf, run in sorted(pieces.items()))


def aligned_blocks(leaves: Sequence[int]) -> Iterator[Block]:
    """The maximal aligned blocks within the runs of consecutive numbers in `leaves` (ascending)."""
    at = 0
    while at < len(leaves):
        first, size = leaves[at], 1
        while (
            first % (2 * size) == 0
            and at + 2 * size <= len(leaves)
            and leaves[at + 2 * size - 1] == first + 2 * size - 1
        ):
            size *= 2
        yield Block(first, first + size)
        at += size


def cover(
    whole: Block, needed: Container[int], find: Callable[[Block], B | None]
) -> tuple[tuple[Block, B], ...] | None:
    """Disjoint aligned blocks in leaf order that hold every needed leaf of `whole`, largest first; None if some leaf is
    missing. `find` gives what is known of a block."""
    if not any(leaf in needed for leaf in whole.leaves):
        return ()
    found = find(whole)
    if found is not None:
        return ((whole, found),)
    if whole.end - whole.first == 1:
        return None
    middle = (whole.first + whole.end) // 2
    left = cover(Block(whole.first, middle), needed, find)
    if left is None:
        return None
    right = cover(Block(middle, whole.end), needed, find)
    return None if right is None else left + right


@lru_cache(maxsize=64)
def slices(nbytes: int, leaves: int) -> tuple[Slice, ...]:
    """The slices that cut a gradient of `nbytes`, which is summed over so many leaves: whole chunks, none longer than
    a range of parameters. Their borders follow from these two alone, so that no id shows who took part."""
    chunks, most = chunk_count(nbytes), min(SLICES, max(FEWEST_SLICES, SLICES_A_LEAF * leaves))
    count = min(chunks, max(most, len(cut(nbytes, RANGE_BYTES))))
    return tuple(Slice(i * chunks // count, (i + 1) * chunks // count) for i in range(count))
