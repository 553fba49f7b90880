"""Preferences: who is chosen of a group, and the loss of DPO by its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dflowd.algorithms.advantages.pairs import best_and_worst
from dflowd.algorithms.losses.dpo import dpo
from dflowd.algorithms.terms.tokens import Tokens


def test_the_best_of_a_group_is_chosen_and_its_worst_rejected() -> None:
    """The others are out of training, and so is a group in which nobody is better."""
    found = best_and_worst(np.array([[0.5, 1.0, 0.0, 1.0], [2.0, 2.0, 2.0, 2.0]]))
    assert found[0].tolist() == pytest.approx([np.nan, 1.0, -1.0, np.nan], nan_ok=True)
    assert np.isnan(found[1]).all()


def test_a_pairs_loss_is_the_papers() -> None:
    """Eq. 7, and its gradient: more where the reference's order is still the wrong one. Two pairs, in any order."""
    logp = torch.tensor([-1.0, -2.0, -0.5, -1.5, -3.0, -0.25], requires_grad=True)
    reference = torch.tensor([-1.5, -2.0, -0.5, -1.0, -3.5, -0.5])
    signs, groups = torch.tensor([1.0, 1, -1, -1, 1, -1]), torch.tensor([4, 4, 4, 2, 2, 2])
    tokens = Tokens(logp, torch.full((6,), 2.0), {"advantage": signs, "logprob": reference}, groups=groups)
    loss, figures = dpo(tokens, {"beta": 0.5})
    moved = logp - reference
    first, second = 0.5 * (moved[0] + moved[1] - moved[2]), 0.5 * (moved[4] - moved[3] - moved[5])
    paper = -(torch.sigmoid(first).log() + torch.sigmoid(second).log()) / 2
    assert loss.item() / 4 == pytest.approx(paper.item())  # a step's sum is divided by its trained completions
    (slope,) = torch.autograd.grad(loss / 4, logp, retain_graph=True)
    (meant,) = torch.autograd.grad(paper, logp)
    assert torch.allclose(slope, meant)
    assert figures["preferences"] == 2
    assert float(figures["preference_margin_sum"]) == pytest.approx(first.item() + second.item())
