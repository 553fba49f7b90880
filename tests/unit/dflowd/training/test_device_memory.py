"""Where a tree's vectors lie shows in no bit. The processor stands in for a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from dflowd.training import device_memory
from dflowd.training.accumulate import BlockStack, HostMemory, Memory, Tree, Vector
from dflowd.training.device_memory import DeviceMemory

SIZE = 50
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_memory, "PIECE", 7)


def on_device(rooms: int) -> DeviceMemory:
    """One with room for so many vectors besides the first."""
    left = [rooms]

    def has_room(nbytes: int) -> bool:
        assert nbytes == 4 * SIZE
        left[0] -= 1
        return left[0] >= 0

    return DeviceMemory(SIZE, CPU, has_room)


def passes(seed: int, leaf: int, count: int) -> Vector:
    rng = np.random.default_rng((seed, leaf))
    return (rng.normal(size=(count, SIZE)) * 10.0 ** rng.integers(-6, 6, (count, SIZE))).astype(np.float32)


def summed(memory: Memory[Any], leaves: list[int], pushed: int) -> list[bytes]:
    """What is published of a block whose leaves have so many micro-batches, of which `pushed` were done."""
    stack = BlockStack(0, len(leaves), memory)
    for leaf, count in enumerate(leaves[:pushed]):
        tree = Tree(memory)
        for gradient in passes(1, leaf, count):
            vector = tree.begin()
            values = memory.values(vector)
            values += gradient if isinstance(values, np.ndarray) else torch.from_numpy(gradient)
            tree.end(vector)
        root = tree.root()
        assert root is None or memory.is_finite(root)
        stack.push(root)
    found = []
    for _, _, total in stack.blocks():
        room = np.full(SIZE, np.nan, np.float32)
        if total is not None:
            memory.write(total, room)
        found.append(room.tobytes())
    return found


@pytest.mark.parametrize("rooms", [0, 1, 2, 100])
@pytest.mark.parametrize(("leaves", "pushed"), [([9], 1), ([5, 0, 8, 3], 4), ([5, 7, 8, 3], 3), ([1] * 8, 7)])
def test_sums_are_the_same_bits_on_the_device_and_beside_it(leaves: list[int], pushed: int, rooms: int) -> None:
    """A GPU with little memory left, and one with much, sum blocks of one run."""
    assert summed(on_device(rooms), leaves, pushed) == summed(HostMemory(SIZE), leaves, pushed)


@pytest.mark.parametrize("rooms", [0, 2])
def test_a_device_holds_no_more_vectors_than_it_has_room_for(rooms: int) -> None:
    """What waits for its other half must not take the memory of the passes."""
    memory = on_device(rooms)
    waiting = [memory.blank() for _ in range(6)]
    assert sum(each.whole is not None for each in waiting) == 1 + rooms
    assert [each.whole is None for each in waiting] == [True] * (5 - rooms) + [False] * (1 + rooms)


def test_a_device_that_turns_out_to_be_full_has_the_host_hold_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Free memory may be in pieces that are too small; a run must not end by that."""
    memory = on_device(100)
    first = memory.blank()
    memory.values(first).add_(3)

    def full(*_: object, **__: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("no block is large enough")

    memory._spare_pieces.append(memory._new_pieces())
    with monkeypatch.context() as without_room:
        without_room.setattr(torch, "empty", full)
        second = memory.blank()
    memory.values(second).add_(1)
    room = np.zeros(SIZE, np.float32)
    memory.write(memory.add(first, second), room)
    assert room.tolist() == [4.0] * SIZE


def test_a_block_of_bfloat16_has_the_same_bytes_on_a_device() -> None:
    """Each of its nodes is rounded where it lies."""
    rng, rooms = np.random.default_rng(1), []
    leaves = [rng.standard_normal(SIZE, np.float32) for _ in range(4)]
    memories: tuple[Memory[Any], ...] = (HostMemory(SIZE), on_device(1))
    for memory in memories:
        stack: BlockStack[Any] = BlockStack(0, 4, memory, is_rounded=True)
        for leaf in leaves:
            vector = memory.blank()
            memory.values(vector)[:] = leaf if isinstance(memory, HostMemory) else torch.from_numpy(leaf)
            stack.push(vector)
        ((_, _, total),) = stack.blocks()
        rooms.append(np.empty(SIZE, np.uint16))
        memory.write(total, rooms[-1])
    assert rooms[0].tobytes() == rooms[1].tobytes()


@pytest.mark.parametrize("make", [lambda: HostMemory(SIZE), lambda: on_device(0)])
def test_a_leaf_that_is_left_out_has_the_same_bytes_on_a_device(make: Callable[[], Memory[Any]]) -> None:
    """Its one not-a-number goes into a sum that every node has to find alike, whoever added it."""
    memory = make()
    broken, other = memory.blank(), memory.blank()
    memory.mark(broken)
    assert not memory.is_finite(broken)
    values = memory.values(other)
    values += 1
    room = np.zeros(SIZE, np.float32)
    memory.write(memory.add(broken, other), room)
    expected = np.ones(SIZE, np.float32)
    expected[0] = np.nan
    assert room.tobytes() == expected.tobytes()
