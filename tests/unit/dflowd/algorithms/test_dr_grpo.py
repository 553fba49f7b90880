"""Dr. GRPO by hand: a token weighs as much in a long completion as in a short one."""

from __future__ import annotations

import pytest
import torch

from dflowd.algorithms.losses.dr_grpo import dr_grpo
from dflowd.algorithms.losses.grpo import grpo
from dflowd.algorithms.terms.tokens import Tokens

CLIP = {"clip": (0.2, 0.28), "kl": 0.0}


def micro_batch() -> Tokens:
    """A completion of one token with the advantage 1, and one of three with -1; the policy has not moved."""
    logp = torch.tensor([-1.0, -2.0, -3.0, -4.0], requires_grad=True)
    advantage = torch.tensor([1.0, -1.0, -1.0, -1.0])
    lengths = torch.tensor([1.0, 3.0, 3.0, 3.0])
    return Tokens(logp, lengths, {"advantage": advantage, "sampled_logprob": logp.detach()})


def test_no_token_is_weighed_by_its_completions_length() -> None:
    """GRPO's eq. 3 without 1/|o|: a token's gradient is its advantage's, where a mean over sequences has a third."""
    tokens = micro_batch()
    loss, _ = dr_grpo(tokens, CLIP)
    assert loss.item() == 1 * -1 + 3 * 1
    (slope,) = torch.autograd.grad(loss, tokens.logp)
    assert slope.tolist() == [-1, 1, 1, 1]
    by_sequence, _ = grpo(tokens, CLIP | {"mean": "sequence"})
    (other,) = torch.autograd.grad(by_sequence, tokens.logp)
    assert other.tolist() == pytest.approx([-1, 1 / 3, 1 / 3, 1 / 3])


def test_its_sum_is_grpos_over_tokens_and_only_the_divisor_differs() -> None:
    """What is divided by is the step's, and comes once at the root of the tree."""
    ours, theirs = dr_grpo(micro_batch(), CLIP), grpo(micro_batch(), CLIP | {"mean": "token"})
    assert ours == theirs
