"""GMPO by hand: the geometric mean of clipped ratios."""

from __future__ import annotations

import math

import pytest
import torch

from dflowd.algorithms.losses.gmpo import gmpo
from dflowd.algorithms.losses.gspo import gspo
from dflowd.algorithms.terms.tokens import Tokens

MOVED = torch.tensor([1.0, 0.1, -0.9, 0.2, 0.0])  # logarithms of ratios, of a completion of two tokens and one of three
CLIP = (0.4, 0.4)


def micro_batch(advantage: tuple[float, float]) -> Tokens:
    logp = torch.tensor([-1.0, -2.0, -3.0, -4.0, -5.0], requires_grad=True)
    columns = {"advantage": torch.tensor([advantage[at] for at in (0, 0, 1, 1, 1)])}
    columns["sampled_logprob"] = logp.detach() - MOVED
    return Tokens(logp, torch.tensor([2.0, 2.0, 3.0, 3.0, 3.0]), columns, torch.tensor([4, 4, 9, 9, 9]))


def test_an_outlier_is_clipped_on_the_side_that_it_is_driven_to_and_the_others_count_in_full() -> None:
    """The ratio of a good completion has an upper bound for each token, that of a bad one a lower bound."""
    tokens = micro_batch((1.0, -1.0))
    loss, figures = gmpo(tokens, {"clip": CLIP, "kl": 0.0})
    good, bad = math.exp((0.4 + 0.1) / 2), math.exp((-0.4 + 0.2 + 0.0) / 3)
    assert loss.item() == pytest.approx(-(good - bad), rel=1e-6)
    (slope,) = torch.autograd.grad(-loss, tokens.logp)
    assert slope.tolist() == pytest.approx([0, good / 2, 0, -bad / 3, -bad / 3], rel=1e-5)
    assert (figures["clipped_low"], figures["clipped_high"]) == (1, 1)


def test_without_clips_it_is_gspo() -> None:
    """Both have a completion's ratio; they differ in what is clipped."""
    one, other = micro_batch((1.0, -1.0)), micro_batch((1.0, -1.0))
    own = gmpo(one, {"clip": (9.0, 9.0), "kl": 0.0})[0]
    theirs = gspo(other, {"clip": (9.0, 9.0), "kl": 0.0})[0]
    assert own.item() == pytest.approx(theirs.item(), rel=1e-6)
