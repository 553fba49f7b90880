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


def test_how_likely_either_completion_is_and_has_become_is_told() -> None:
    """Both may become less likely while their margin grows, which the margin alone does not tell (arXiv 2410.08847)."""
    logp, reference = torch.tensor([-1.0, -2.0, -4.0, -8.0]), torch.tensor([-0.5, -1.0, -3.0, -3.0])
    signs, groups = torch.tensor([1.0, 1, -1, -1]), torch.tensor([0, 0, 0, 0])
    tokens = Tokens(logp, torch.full((4,), 2.0), {"advantage": signs, "logprob": reference}, groups=groups)
    _, figures = dpo(tokens, {"beta": 0.5})
    told = {name: float(figures[f"{name}_sum"]) for name in ("chosen_logprob", "rejected_logprob")}
    assert told == {"chosen_logprob": -3.0, "rejected_logprob": -12.0}
    rewards = [float(figures[f"{name}_reward_sum"]) for name in ("chosen", "rejected")]
    assert rewards == [0.5 * -1.5, 0.5 * -6.0]
    assert float(figures["preference_margin_sum"]) == rewards[0] - rewards[1]


def test_with_a_weight_the_better_completion_is_learnt_as_a_demonstration_is() -> None:
    """RPO, eq. 1 of arXiv 2404.19733: beside the pair's loss the better one's negative log-likelihood, the mean over
    its tokens, whatever the reference says of it. One that is trained on in part counts those tokens alone."""
    logp = torch.tensor([-1.0, -2.0, -0.5, -1.5, -3.0, -0.25], requires_grad=True)
    given = {
        "advantage": torch.tensor([1.0, 1, -1, -1, 1, 1]),
        "logprob": torch.tensor([-1.5, -2.0, -0.5, -1.0, -3.5, -0.5]),
        "mask": torch.tensor([1.0, 1, 1, 1, 1, 0]),
    }
    lengths, groups = torch.tensor([2.0, 2, 1, 1, 1, 1]), torch.tensor([4, 4, 4, 2, 2, 2])
    tokens = Tokens(logp, lengths, given, groups=groups)
    plain, _ = dpo(tokens, {"beta": 0.5})
    loss, _ = dpo(tokens, {"beta": 0.5, "nll": 0.7})
    paper = -((logp[0] + logp[1]) / 2 + logp[4]) / 2  # the mean over both pairs
    assert (loss - plain).item() / 4 == pytest.approx(0.7 * paper.item())
    (slope,) = torch.autograd.grad((loss - plain) / 4, logp)
    (meant,) = torch.autograd.grad(0.7 * paper, logp)
    assert torch.allclose(slope, meant)
