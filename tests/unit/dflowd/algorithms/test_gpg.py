"""GPG by hand: a token's gradient is its advantage."""

from __future__ import annotations

import torch

from dflowd.algorithms.losses.gpg import gpg
from dflowd.algorithms.terms.tokens import Tokens


def test_a_token_is_made_likelier_by_its_advantage() -> None:
    """Nothing is clipped, however far the policy has moved from the one that sampled."""
    logp = torch.tensor([-1.0, -2.0], requires_grad=True)
    given = {"advantage": torch.tensor([0.5, -3.0]), "sampled_logprob": torch.tensor([-9.0, 0.0])}
    loss, _ = gpg(Tokens(logp, torch.tensor([2.0, 2.0]), given), {"kl": 0.0})
    (slope,) = torch.autograd.grad(loss, logp)
    assert slope.tolist() == [-0.5, 3.0]
