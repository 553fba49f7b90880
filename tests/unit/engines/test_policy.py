"""A model in an engine takes its parameters from where they lie."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest
import torch

from dflowd.engines.policy import Policy, Vector

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture
def policy() -> Policy:
    config = {"init": {"config": "spell_llama.json", "tokenizer": "spell_tokenizer/"}}
    return Policy("policy", config, EXAMPLES, 5, torch.device("cpu"))


def values_of(policy: Policy) -> Vector:
    vector = np.empty(policy.size, np.float32)
    policy.write(vector)
    return vector


def test_parameters_are_the_shards_own_memory_for_as_long_as_a_call_lasts(policy: Policy) -> None:
    """An engine must not hold a model twice; and once its call is over the memory is the store's to write to."""
    wanted = 2 * values_of(policy)
    with mmap.mmap(-1, wanted.nbytes) as room:
        room.write(wanted.tobytes())
        policy.load("a", memoryview(room).toreadonly())
        assert np.array_equal(values_of(policy), wanted)
        inside = np.frombuffer(room, np.float32)
        assert all(np.shares_memory(each.detach().numpy(), inside) for each in policy.model.parameters())
        policy.unload()
        del inside
    # leaving the block closes the map, which fails while anything still looks into it


def test_memory_that_is_not_aligned_is_copied(policy: Policy) -> None:
    """Kernels may round otherwise at other addresses, and weights must not depend on where a buffer happened to lie."""
    wanted = values_of(policy)
    buffer = np.zeros(wanted.nbytes + 64, np.uint8)
    start = 4 + -(buffer.ctypes.data) % 64
    buffer[start : start + wanted.nbytes] = wanted.view(np.uint8)
    view = memoryview(buffer)[start : start + wanted.nbytes]
    policy.load("b", view)
    assert np.array_equal(values_of(policy), wanted)
    assert not any(np.shares_memory(each.detach().numpy(), buffer) for each in policy.model.parameters())


def test_a_shard_of_another_model_is_refused(policy: Policy) -> None:
    """Its numbers would be taken for weights."""
    with pytest.raises(ValueError, match="values for the"):
        policy.load("c", memoryview(bytes(16)))
