"""The pages of the papers, by hand on small numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dflowd.algorithms.grpo import flat_groups, group_advantage, grpo_loss
from dflowd.algorithms.kl import k3
from dflowd.algorithms.ratio import clipped_gain

CLIP = (0.2, 0.28)


def test_advantages_of_a_group_have_mean_zero_and_unit_deviation() -> None:
    """Section 4.1.2; `none` leaves the scale of the reward."""
    rewards = np.array([[1, 0, 0, 0], [1, 1, 0, 0]], np.float32)
    assert group_advantage(rewards, "std")[0] == pytest.approx([1.732, -0.577, -0.577, -0.577], abs=1e-3)
    assert group_advantage(rewards, "none")[1] == pytest.approx([0.5, 0.5, -0.5, -0.5])


def test_a_group_of_equal_rewards_teaches_nothing() -> None:
    """Neither a division by zero nor a push in any direction."""
    rewards = np.full((1, 4), 0.3, np.float32)
    assert flat_groups(rewards).tolist() == [True]
    assert not group_advantage(rewards, "std").any()


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain", "cut"),
    [
        (1.5, 1.0, 1.28, "high"),  # better and already likelier: no more
        (1.5, -1.0, -1.5, ""),  # worse and likelier: pushed back in full
        (0.5, -1.0, -0.8, "low"),
        (0.5, 1.0, 0.5, ""),
        (1.1, 1.0, 1.1, ""),
    ],
)
def test_gains_are_cut_on_the_side_where_the_policy_already_moved(
    ratio: float, advantage: float, gain: float, cut: str
) -> None:
    """PPO eq. 7, with DAPO's separate bounds."""
    logp = torch.tensor([ratio]).log().requires_grad_()
    found = clipped_gain(logp, torch.zeros(1), torch.tensor([advantage]), CLIP)
    assert found.gain.item() == pytest.approx(gain, rel=1e-5)
    assert (bool(found.cut_low), bool(found.cut_high)) == (cut == "low", cut == "high")
    (slope,) = torch.autograd.grad(found.gain.sum(), logp)
    assert (float(slope) == 0) == bool(cut)


def test_k3_is_zero_where_both_agree_and_never_negative() -> None:
    """Schulman's third estimator."""
    logp = torch.linspace(-3, 0, 7)
    assert not k3(logp, logp).any()
    assert (k3(logp, torch.full((7,), -1.0)) >= 0).all()


def test_the_loss_is_a_sum_that_any_cut_into_parts_keeps() -> None:
    """Leaves and micro-batches add up to the step's loss; the divisor comes later."""
    generator = torch.Generator().manual_seed(0)
    logp, old, reference, advantage, weight = torch.randn(5, 12, generator=generator)
    whole, _ = grpo_loss(logp, old, reference, advantage, weight, clip=CLIP, beta=0.1)
    parts = sum(
        grpo_loss(logp[s], old[s], reference[s], advantage[s], weight[s], clip=CLIP, beta=0.1)[0]
        for s in (slice(0, 5), slice(5, 12))
    )
    assert float(whole) == pytest.approx(float(parts), rel=1e-5)
    without, _ = grpo_loss(logp, old, None, advantage, weight, clip=CLIP, beta=0.1)
    assert float(whole - without) == pytest.approx(0.1 * float((k3(logp, reference) * weight).sum()), rel=1e-4)
