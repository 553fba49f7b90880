"""CISPO by hand: whatever the ratio, a token keeps its part of the gradient."""

from __future__ import annotations

import pytest
import torch

from dflowd.algorithms.losses.cispo import cispo
from dflowd.algorithms.losses.grpo import grpo
from dflowd.algorithms.terms.tokens import Tokens

RATIOS = torch.tensor([0.1, 1.0, 4.0, 9.0])


def micro_batch(advantage: float, **given: torch.Tensor) -> Tokens:
    logp = torch.tensor([-1.0, -2.0, -3.0, -4.0], requires_grad=True)
    columns = {"advantage": torch.full((4,), advantage), "sampled_logprob": logp.detach() - RATIOS.log(), **given}
    return Tokens(logp, torch.full((4,), 4.0), columns, torch.zeros(4).long())


@pytest.mark.parametrize("advantage", [2.0, -2.0])
def test_a_tokens_gradient_is_its_advantage_times_a_bounded_ratio(advantage: float) -> None:
    """Eq. 4: the ratio has no gradient of its own, and its bound leaves no token out."""
    tokens = micro_batch(advantage)
    loss, figures = cispo(tokens, {"high": 5.0, "kl": 0.0})
    (slope,) = torch.autograd.grad(-loss, tokens.logp)
    assert slope.tolist() == pytest.approx([0.1 * advantage, advantage, 4 * advantage, 5 * advantage])
    assert loss.item() == pytest.approx(-float((slope * tokens.logp.detach()).sum()), rel=1e-5)
    assert (figures["clipped_low"], figures["clipped_high"]) == (0, 1)
    assert figures["ratio_max"] == pytest.approx(9.0)


def test_where_the_policy_has_not_moved_its_gradient_is_grpos() -> None:
    """The two differ in what they do about a ratio, and about nothing else."""
    tokens = micro_batch(1.0, mask=torch.tensor([1.0, 1.0, 0.0, 1.0]))
    still = Tokens(tokens.logp, tokens.lengths, {**tokens.given, "sampled_logprob": tokens.logp.detach()})
    (own,) = torch.autograd.grad(cispo(still, {"high": 5.0, "kl": 0.0})[0], still.logp)
    (other,) = torch.autograd.grad(grpo(still, {"clip": (0.2, 0.2), "mean": "token", "kl": 0.0})[0], still.logp)
    assert own.tolist() == other.tolist()
