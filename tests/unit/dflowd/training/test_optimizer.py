"""AdamW as torch has it, in bits that no slicing changes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dflowd.training.optimizer import AdamW, Parts, Scratch


def rng_vectors(count: int, size: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.normal(size=size).astype(np.float32) for _ in range(count)]


def test_updates_are_those_of_torch() -> None:
    """The same algorithm by another hand, over several steps, with decay and bias correction."""
    start, *gradients = rng_vectors(6, 300)
    parameter = torch.nn.Parameter(torch.from_numpy(start.copy()))
    theirs = torch.optim.AdamW([parameter], lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    ours = AdamW(lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
    state = Parts(start.copy(), np.zeros(300, np.float32), np.zeros(300, np.float32))
    for update, gradient in enumerate(gradients):
        parameter.grad = torch.from_numpy(gradient.copy())
        theirs.step()
        ours.step(state, gradient, state, scale=1.0, update=update, lr=0.01, scratch=Scratch())
    assert np.abs(state.params - parameter.detach().numpy()).max() < 1e-6


@given(st.lists(st.integers(1, 299_999), max_size=4))
def test_any_slicing_gives_the_same_bits(cuts: list[int]) -> None:
    """Slices come as whole chunks of whatever number; the weights must not show where they were cut."""
    start, gradient = rng_vectors(2, 300_000)
    optimizer = AdamW(lr=0.01)
    results = []
    for borders in ([0, 300_000], sorted({0, *cuts, 300_000})):
        state = Parts(start.copy(), start.copy(), np.abs(start))
        for first, end in itertools.pairwise(borders):
            part = Parts(*(each[first:end] for each in state))
            optimizer.step(part, gradient[first:end], part, scale=0.3, update=4, lr=0.01, scratch=Scratch())
        results.append(b"".join(each.tobytes() for each in state))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [1.0, 1.0, 1.0, 1.0, 1.0]),
        ({"ramp_steps": 4}, [0.25, 0.5, 0.75, 1.0, 1.0]),
        ({"end": 0.2}, [1.0, 0.8, 0.6, 0.4, 0.2]),
        ({"end": 0.0, "schedule": "cosine"}, [1.0, 0.853553, 0.5, 0.146447, 0.0]),
        ({"end": 0.5, "ramp_steps": 2}, [0.5, 1.0, 1.0, 0.75, 0.5]),
    ],
)
def test_the_learning_rate_follows_from_the_updates_number(settings: dict[str, float], expected: list[float]) -> None:
    """Ramp first, then the way to `end`, which the last update has."""
    optimizer = AdamW.from_config({"adamw": {"lr": 1.0, **settings}})
    assert [optimizer.learning_rate(update, 5) for update in range(5)] == pytest.approx(expected, abs=1e-6)
