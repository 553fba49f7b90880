"""The fixed tree of gradients: S[a, a+2n) = S[a, a+n) + S[a+n, a+2n), one float32 addition an element.

There are two, one inside the other. S[i, i+1) is the gradient of a leaf's i-th micro-batch, and a leaf is S[0, 2^k) of
its micro-batches with the smallest 2^k that is no less than they are; then S[i, i+1) is the i-th leaf, and a block is a
node of that tree. What is absent, beyond a leaf's last micro-batch or where a leaf has no samples, adds nothing. Which
node, or which device, summed which part does not show in the bits: any disjoint cover by blocks is finished to the same
root.

With `gradient: bfloat16` each node of the outer tree, from the leaves to the root, is rounded once to bfloat16 after it
was added in float32. If only what is published were rounded, the cover would show in the bits.

Zeros leave as +0: a sum that a block publishes and one that stays inside a bigger block may differ in the sign of a
zero and in nothing else, so both ends of a cover take the sign away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import numpy as np

from .bfloat16 import Bits, Floats, narrow, rounded, widen

Vector: TypeAlias = Floats
Stored: TypeAlias = Vector | Bits
"""A block as it lies in its shards: float32, or the bits of bfloat16."""

V = TypeVar("V")
S = TypeVar("S", Floats, Bits, Floats | Bits)

CACHED = 1 << 16  # elements that several passes are made over, out of the cache
ELEMENTS = 1 << 22  # worked on at a time where vectors are as long as a model: progress shows within a second


def spans(size: int, longest: int = ELEMENTS) -> Iterator[slice]:
    """[0, size) in runs of at most so many."""
    return (slice(at, min(at + longest, size)) for at in range(0, size, longest))


def within(vectors: Sequence[S], size: int) -> Iterator[S]:
    """Elements of vectors that lie one behind the other, `size` at a time. All vectors but the last have a multiple of
    that many: views."""
    for each in vectors:
        for at in range(0, len(each), size):
            yield each[at : at + size]


class Memory(Protocol[V]):
    """Where the vectors [P] float32 of a tree lie, and what is done to them there. It shows in no bit."""

    def lend(self, room: Vector) -> None:
        """Memory of the host [P] that may be used. Where it is, and was lent before the first `blank`, the sum of all
        comes to lie in it."""

    def blank(self) -> V:
        """Zeros: memory that is free again, where there is."""

    def values(self, vector: V) -> Any:
        """What a backward pass adds to, an array or a tensor [P]. Valid until the next `blank`."""

    def add(self, left: V, right: V) -> V:
        """Their sum, which takes the place of both."""

    def round(self, vector: V) -> None:
        """Each element to the nearest bfloat16."""

    def is_finite(self, vector: V) -> bool:
        """Whether all elements are."""

    def mark(self, vector: V) -> None:
        """Make it one not-a-number of fixed bytes, and zeros behind it."""

    def lies_in(self, vector: V, room: Stored) -> bool:
        """Whether it needs no writing there."""

    def write(self, vector: V, room: Stored) -> None:
        """Its values with all zeros as +0, [P], into `room`, which it may lie in. Not used again."""


class HostMemory:
    """Vectors as numpy's arrays."""

    def __init__(self, size: int, progress: Callable[[], None] = lambda: None) -> None:
        """`progress` is called after each run of elements that is worked on."""
        self._size = size
        self._spare: list[Vector] = []
        self._progress = progress

    def lend(self, room: Vector) -> None:
        self._spare.append(room)

    def blank(self) -> Vector:
        if not self._spare:
            return np.zeros(self._size, np.float32)
        vector = self._spare.pop()
        for span in self._spans():
            vector[span].fill(0)
        return vector

    def values(self, vector: Vector) -> Vector:
        return vector

    def add(self, left: Vector, right: Vector) -> Vector:
        for span in self._spans():
            np.add(left[span], right[span], out=left[span])
        self._spare.append(right)
        return left

    def round(self, vector: Vector) -> None:
        for span in self._spans():
            for part in spans(span.stop - span.start, CACHED):
                values = vector[span][part]
                values[:] = rounded(values)

    def is_finite(self, vector: Vector) -> bool:
        """A square that is too large for float32 is looked at again, one element at a time."""
        for span in self._spans():
            part = vector[span]
            with np.errstate(over="ignore", invalid="ignore"):
                is_sure = math.isfinite(float(np.dot(part, part)))
            if not is_sure and not np.isfinite(part).all():
                return False
        return True

    def mark(self, vector: Vector) -> None:
        for span in self._spans():
            vector[span].fill(0)
        vector[:1] = np.nan

    def lies_in(self, vector: Vector, room: Stored) -> bool:
        return np.shares_memory(vector, room)

    def write(self, vector: Vector, room: Stored) -> None:
        for span in self._spans():
            store(vector[span], room[span])

    def _spans(self) -> Iterator[slice]:
        for span in spans(self._size):
            yield span
            self._progress()


class Tree(Generic[V]):
    """Sums what comes in order, like a binary counter. Of n, at most 1 + floor(log2(n)) vectors are alive, and if they
    are made by `begin` no more than of half as many, rounded up. `is_rounded`: each sum, to bfloat16."""

    def __init__(self, memory: Memory[V], is_rounded: bool = False) -> None:
        self.memory = memory
        self._is_rounded = is_rounded
        self._stack: list[tuple[int, V | None]] = []  # (how many are summed, their sum), from left to right
        self._count = 1  # that what `begin` gave will hold

    def begin(self) -> V:
        """What the next one is added to, one addition an element, before `end`. It holds the other half of a pair, if
        that is there, so that the tree's own addition is made on the way; else zeros."""
        count, half = self._stack[-1] if self._stack else (0, None)
        if count == 1 and half is not None:
            self._stack.pop()
            self._count = 2
            return half
        self._count = 1
        return self.memory.blank()

    def end(self, vector: V) -> None:
        """What `begin` gave has the next one in it."""
        self._put(self._count, vector)

    def push(self, vector: V | None) -> None:
        """The next one, made by itself; None if it is absent. It is the tree's from now on."""
        self._put(1, vector)

    def parts(self) -> list[tuple[int, V | None]]:
        """(how many, their sum), of as few as there are, in order; None where all are absent."""
        return self._stack

    def root(self) -> V | None:
        """The sum of all; None if all are absent. Nothing may come after it."""
        total: V | None = None
        while self._stack:
            total = self._sum(self._stack.pop()[1], total)
        return total

    def _put(self, count: int, vector: V | None) -> None:
        while self._stack and self._stack[-1][0] == count:
            _, left = self._stack.pop()
            count, vector = 2 * count, self._sum(left, vector)
        self._stack.append((count, vector))

    def _sum(self, left: V | None, right: V | None) -> V | None:
        if left is None or right is None:
            return right if left is None else left
        total = self.memory.add(left, right)
        if self._is_rounded:
            self.memory.round(total)
        return total


class BlockStack(Generic[V]):
    """Sums the leaves of an aligned block, pushed in order. `is_rounded`: each node of the tree, to bfloat16."""

    def __init__(self, first: int, end: int, memory: Memory[V], is_rounded: bool = False) -> None:
        size = end - first
        if size < 1 or size & (size - 1) or first % size:
            raise ValueError(f"[{first}, {end}) is no aligned block of leaves")
        self._next = first
        self._first, self._end = first, end
        self._memory, self._is_rounded = memory, is_rounded
        self._tree = Tree(memory, is_rounded)

    def push(self, gradient: V | None) -> None:
        """Add the next leaf's gradient, [parameters]; None for an absent leaf. It is the stack's from now on."""
        if self._next == self._end:
            raise ValueError("the block is full")
        self._next += 1
        if gradient is not None and self._is_rounded:
            self._memory.round(gradient)
        self._tree.push(gradient)

    def blocks(self) -> list[tuple[int, int, V | None]]:
        """(first, end, sum) of each aligned block of the leaves pushed so far, in order; None where all are absent.
        Nothing may be pushed after it."""
        found: list[tuple[int, int, V | None]] = []
        at = self._first
        for size, total in self._tree.parts():
            found.append((at, at + size, total))
            at += size
        return found


def store(values: Vector, room: Stored) -> None:
    """Write values [n] into a room [n], all zeros as +0; into one of bfloat16 what `rounded` left."""
    if room.dtype == np.float32:
        np.add(values, np.float32(0), out=room)
        return
    for span in spans(len(values), CACHED):
        room[span] = narrow(np.add(values[span], np.float32(0)))


def as_floats(block: Stored) -> Vector:
    """Its values; a copy where they are bfloat16."""
    return block.view(np.float32) if block.dtype == np.float32 else widen(block.view(np.uint16))


class Finisher:
    """Sums disjoint aligned blocks {(first, end): its sum} to a node of the tree, in memory that is used again: fresh
    memory for each sum on the way costs several times what adding does, in page faults. For one thread."""

    def __init__(self) -> None:
        self._spare: list[Vector] = []  # by how many sums wait for their right half

    def finish(self, cover: Mapping[tuple[int, int], Stored], end: int, first: int = 0) -> Vector:
        """The sum of the leaves [first, end); valid until the next call.

        Leaves in no block are absent. The inputs stay as they are. Of blocks of bfloat16 each sum is rounded to that.
        Raises ValueError where there is no block at all or a block is no node of the tree. Zeros are +0.
        """
        used: set[tuple[int, int]] = set()
        total = self._sum(cover, first, end, used, 0)
        if total is None or len(used) != len(cover):
            raise ValueError(
                f"blocks {sorted(cover)} are no disjoint part of the tree over the leaves {first} to {end}"
            )
        return np.add(total, np.float32(0), out=self._room(0, len(total)))

    def _sum(
        self, cover: Mapping[tuple[int, int], Stored], first: int, end: int, used: set[tuple[int, int]], waiting: int
    ) -> Vector | None:
        if (first, end) in cover:
            used.add((first, end))
            return as_floats(cover[first, end])
        if end - first < 2:
            return None
        middle = (first + end) // 2
        left = self._sum(cover, first, middle, used, waiting)
        right = self._sum(cover, middle, end, used, waiting if left is None else waiting + 1)
        if left is None or right is None:
            return right if left is None else left
        total = np.add(left, right, out=self._room(waiting, len(left)))
        if next(iter(cover.values())).dtype == np.uint16:
            total[:] = rounded(total)
        return total

    def _room(self, waiting: int, size: int) -> Vector:
        """Nothing that is still to be read lies there, but what is added to there."""
        while len(self._spare) <= waiting:
            self._spare.append(np.empty(size, np.float32))
        if len(self._spare[waiting]) < size:
            self._spare[waiting] = np.empty(size, np.float32)
        return self._spare[waiting][:size]
