"""The fixed tree of gradients: S[a, a+2m) = S[a, a+m) + S[a+m, a+2m), one float32 addition an element.

A leaf that is absent adds nothing. Which node summed which part does not show in the bits: a block is a node of the
tree, and any disjoint cover by blocks is finished to the same root.

Zeros leave as +0: a sum that a block publishes and one that stays inside a bigger block may differ in the sign of a
zero and in nothing else, so both ends of a cover take the sign away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]

ELEMENTS = 1 << 22  # worked on at a time where vectors are as long as a model: progress shows within a second


def spans(size: int, longest: int = ELEMENTS) -> Iterator[slice]:
    """[0, size) in runs of at most so many."""
    return (slice(at, min(at + longest, size)) for at in range(0, size, longest))


def within(vectors: Sequence[Vector], size: int) -> Iterator[Vector]:
    """Elements of vectors that lie one behind the other, `size` at a time. All vectors but the last have a multiple of
    that many: views."""
    for each in vectors:
        for at in range(0, len(each), size):
            yield each[at : at + size]


class BlockStack:
    """Sums leaves pushed in order, like a binary counter: at most 1 + log2(leaves) gradients are alive."""

    def __init__(self, first: int, end: int, progress: Callable[[], None] = lambda: None) -> None:
        """`progress` is called after each run of elements that is cleared or added."""
        size = end - first
        if size < 1 or size & (size - 1) or first % size:
            raise ValueError(f"[{first}, {end}) is no aligned block of leaves")
        self._next = first
        self._first, self._end = first, end
        self._stack: list[tuple[int, Vector | None]] = []  # (leaves summed, their sum)
        self._spare: list[Vector] = []
        self._progress = progress

    def blank(self, size: int) -> Vector:
        """Zeros, [size], for the next leaf to be summed into and pushed: memory that is free again, where there is."""
        if not self._spare:
            return np.zeros(size, np.float32)
        vector = self._spare.pop()
        for span in spans(len(vector)):
            vector[span].fill(0)
            self._progress()
        return vector

    def lend(self, vector: Vector) -> None:
        """Let the stack use this memory. If it is lent before the first `blank`, the root comes to lie in it."""
        self._spare.append(vector)

    def push(self, gradient: Vector | None) -> None:
        """Add the next leaf's gradient, [parameters]; None for an absent leaf. The array is the stack's from now on."""
        if self._next == self._end:
            raise ValueError("the block is full")
        self._next += 1
        self._stack.append((1, gradient))
        while len(self._stack) > 1 and self._stack[-1][0] == self._stack[-2][0]:
            size, right = self._stack.pop()
            _, left = self._stack.pop()
            self._stack.append((2 * size, self._add(left, right)))

    def root(self) -> Vector | None:
        """The block's sum, once all its leaves are pushed; None if all are absent. Zeros are +0."""
        if self._next != self._end:
            raise ValueError(f"leaves from {self._next} to {self._end} are missing")
        return self.blocks()[0][2]

    def blocks(self) -> list[tuple[int, int, Vector | None]]:
        """(first, end, sum) of each aligned block of the leaves pushed so far, in order; None where all are absent.
        Zeros are +0. Nothing may be pushed after it."""
        found: list[tuple[int, int, Vector | None]] = []
        at = self._first
        for size, total in self._stack:
            if total is not None:
                self._add_to(total, np.float32(0))
            found.append((at, at + size, total))
            at += size
        return found

    def _add(self, left: Vector | None, right: Vector | None) -> Vector | None:
        if left is None or right is None:
            return right if left is None else left
        self._add_to(left, right)
        self._spare.append(right)
        return left

    def _add_to(self, total: Vector, more: Vector | np.float32) -> None:
        for span in spans(len(total)):
            np.add(total[span], more[span] if isinstance(more, np.ndarray) else more, out=total[span])
            self._progress()


def finish(cover: Mapping[tuple[int, int], Vector], end: int, first: int = 0) -> Vector:
    """The sum of the leaves [first, end), a node of the tree, from disjoint aligned blocks {(first, end): its sum}.

    Leaves in no block are absent. The inputs stay as they are. Raises ValueError where there is no block at all or a
    block is no node of the tree. Zeros are +0.
    """
    used: set[tuple[int, int]] = set()
    total = _sum(cover, first, end, used)
    if total is None or len(used) != len(cover):
        raise ValueError(f"blocks {sorted(cover)} are no disjoint part of the tree over the leaves {first} to {end}")
    return np.add(total, np.float32(0))


def _sum(cover: Mapping[tuple[int, int], Vector], first: int, end: int, used: set[tuple[int, int]]) -> Vector | None:
    if (first, end) in cover:
        used.add((first, end))
        return cover[first, end]
    if end - first < 2:
        return None
    middle = (first + end) // 2
    left, right = _sum(cover, first, middle, used), _sum(cover, middle, end, used)
    if left is None or right is None:
        return right if left is None else left
    return np.add(left, right)
