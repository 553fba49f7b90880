"""CPGD by hand: the policy gradient as far as the clip, and a pull back."""

from __future__ import annotations

import math

import pytest
import torch

from dflowd.algorithms.losses.cpgd import cpgd
from dflowd.algorithms.terms.tokens import Tokens

RATIOS = torch.tensor([0.5, 1.0, 1.5, 9.0])
CLIP = (0.2, 0.2)


def micro_batch(advantage: float) -> Tokens:
    logp = torch.tensor([-1.0, -2.0, -3.0, -4.0], requires_grad=True)
    columns = {"advantage": torch.full((4,), advantage), "sampled_logprob": logp.detach() - RATIOS.log()}
    return Tokens(logp, torch.full((4,), 4.0), columns, torch.zeros(4).long())


@pytest.mark.parametrize(("advantage", "kept"), [(2.0, [1, 1, 0, 0]), (-2.0, [0, 1, 1, 1])])
def test_a_tokens_gradient_is_its_advantage_until_it_is_clipped(advantage: float, kept: list[int]) -> None:
    """No ratio is multiplied in, so that none can be large."""
    tokens = micro_batch(advantage)
    loss, figures = cpgd(tokens, {"clip": CLIP, "drift": 0.0, "kl": 0.0})
    (slope,) = torch.autograd.grad(-loss, tokens.logp)
    assert slope.tolist() == [advantage * each for each in kept]
    assert (figures["clipped_low"], figures["clipped_high"]) == ((0, 2) if advantage > 0 else (1, 0))


def test_drift_pulls_back_by_what_the_ratio_is_above_one_up_to_a_bound() -> None:
    """The gradient of KL(old, new) by k3, where 8 counts as 2."""
    tokens = micro_batch(0.0)
    loss, _ = cpgd(tokens, {"clip": CLIP, "drift": 0.1, "kl": 0.0})
    (slope,) = torch.autograd.grad(loss, tokens.logp)
    assert slope.tolist() == pytest.approx([-0.05, 0.0, 0.05, 0.2], abs=1e-6)


def test_the_loss_is_the_sum_of_clipped_log_probabilities_times_advantages() -> None:
    """As the paper's authors write it."""
    tokens = micro_batch(1.0)
    old = tokens["old_logprob"]
    loss, _ = cpgd(tokens, {"clip": CLIP, "drift": 0.0, "kl": 0.0})
    assert loss.item() == pytest.approx(-float(tokens.logp.detach().clamp(max=math.log(1.2) + old).sum()), rel=1e-6)
