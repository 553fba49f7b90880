"""The pages of the papers, by hand on small numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dflowd.algorithms.advantages.flat import flat_groups
from dflowd.algorithms.advantages.grpo import group_advantage
from dflowd.algorithms.losses.grpo import grpo
from dflowd.algorithms.terms.kl import k3
from dflowd.algorithms.terms.ratio import clipped_gain
from dflowd.algorithms.terms.tokens import Tokens

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


@pytest.mark.parametrize("scale", ["std", "none"])
@pytest.mark.parametrize("rewards", [(30.000002, 30.000002, 30, 30), (1e-9, 1e-9 * (1 + 1e-7), 1e-9), (-7.0,), (0, 0)])
def test_a_group_within_rounding_of_flat_is_flat(rewards: tuple[float, ...], scale: str) -> None:
    """The last digit of a float32 is no difference between two answers."""
    group = np.array([rewards], np.float32)
    assert flat_groups(group).tolist() == [True]
    assert not group_advantage(group, scale).any()


def test_advantages_do_not_depend_on_the_unit_of_the_reward() -> None:
    """Points of a thousand, or shares of one: the same comparison."""
    rewards = np.array([[1, 0, 0.25, 0.5]], np.float32)
    for unit in (2.0**-30, 2.0**20):
        assert group_advantage(rewards * np.float32(unit), "std") == pytest.approx(group_advantage(rewards, "std"))


def test_a_small_difference_of_large_rewards_gives_small_advantages() -> None:
    """Just above what rounding makes, there is little to learn, and not as much as from right and wrong."""
    near = np.array([[30.00001, 30, 30, 30.00001]], np.float32)
    assert not flat_groups(near).any()
    assert 0 < group_advantage(near, "std").max() < 0.2


def test_rewards_of_0_and_1_have_the_bits_of_the_plain_formula() -> None:
    """Half of all tasks reward so; their weights must not change with how the floor is written."""
    rewards = np.array([[1, 0, 0, 1, 0], [1, 1, 1, 1, 0]], np.float32)
    wide = rewards.astype(np.float64)
    plain = (wide - wide.mean(1, keepdims=True)) / (wide.std(1, keepdims=True) + 1e-6)
    assert group_advantage(rewards, "std").tobytes() == plain.tobytes()


def test_bessels_correction_is_there_for_who_compares() -> None:
    """TRL's and verl's advantages, by torch's own deviation."""
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.5]])
    theirs = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-6)
    assert group_advantage(rewards.numpy(), "std", ddof=1) == pytest.approx(theirs.numpy(), rel=1e-5)
    assert not group_advantage(np.ones((2, 1), np.float32), "std", ddof=1).any()  # a group of one is flat


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


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain", "is_cut"),
    [
        (5.0, -1.0, -3.0, True),  # far likelier than it was, and bad: pushed back no harder than by 3
        (2.0, -1.0, -2.0, False),
        (5.0, 1.0, 1.28, True),  # by the upper bound of old
        (0.5, -1.0, -0.8, False),
    ],
)
def test_a_dual_clip_bounds_what_a_bad_token_costs(ratio: float, advantage: float, gain: float, is_cut: bool) -> None:
    """Dual-clip PPO, eq. 5: where the advantage is negative, the plain clip leaves the ratio without a bound."""
    logp = torch.tensor([ratio]).log().requires_grad_()
    found = clipped_gain(logp, torch.zeros(1), torch.tensor([advantage]), CLIP, 3.0)
    assert found.gain.item() == pytest.approx(gain, rel=1e-5)
    assert bool(found.cut_high) == is_cut


def test_the_loss_is_a_sum_that_any_cut_into_parts_keeps() -> None:
    """Leaves and micro-batches add up to the step's loss; the divisor comes later."""
    generator = torch.Generator().manual_seed(0)
    logp, old, reference, advantage, weight = torch.randn(5, 12, generator=generator)

    def loss_of(part: slice, **more: torch.Tensor) -> float:
        given = {"old_logprob": old[part], "advantage": advantage[part], "weight": weight[part], **more}
        settings = {"clip": CLIP, "mean": "token", "kl": 0.1}
        return grpo(Tokens(logp[part], torch.ones(12)[part], given), settings)[0].item()

    whole = loss_of(slice(0, 12), logprob=reference)
    parts = sum(loss_of(part, logprob=reference[part]) for part in (slice(0, 5), slice(5, 12)))
    assert whole == pytest.approx(parts, rel=1e-5)
    without = loss_of(slice(0, 12))
    assert whole - without == pytest.approx(0.1 * float((k3(logp, reference) * weight).sum()), rel=1e-4)
