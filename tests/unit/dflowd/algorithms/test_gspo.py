"""GSPO by hand: a completion is pushed, or cut, as a whole."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from dflowd.algorithms.losses.gspo import gspo
from dflowd.algorithms.terms.kl import k3
from dflowd.algorithms.terms.tokens import Tokens

RATIOS = torch.tensor([2.0, 0.5, 1.5, 1.5, 1.0])  # of a completion of two tokens, and of one of three
MEAN = 2.25 ** (1 / 3)  # the second one's; the first one's is 1


def micro_batch(advantage: tuple[float, float], **given: torch.Tensor) -> Tokens:
    logp = torch.tensor([-1.0, -2.0, -3.0, -4.0, -5.0], requires_grad=True)
    columns = {"advantage": torch.tensor([advantage[at] for at in (0, 0, 1, 1, 1)]), **given}
    columns["sampled_logprob"] = logp.detach() - RATIOS.log()
    return Tokens(logp, torch.tensor([2.0, 2.0, 3.0, 3.0, 3.0]), columns, torch.tensor([4, 4, 9, 9, 9]))


def slopes(tokens: Tokens, **settings: Any) -> tuple[float, list[float], dict[str, Any]]:
    loss, figures = gspo(tokens, {"clip": (0.2, 0.28), "kl": 0.0, **settings})
    (slope,) = torch.autograd.grad(-loss, tokens.logp)
    return loss.item(), slope.tolist(), figures


def test_a_completion_gains_by_the_geometric_mean_of_its_ratios() -> None:
    """Eq. 5 and 7. Of two opposite moves of its tokens nothing is left, where a ratio a token would cut one of them."""
    loss, slope, figures = slopes(micro_batch((1.0, -1.0)))
    assert loss == pytest.approx(-(1.0 - MEAN))
    assert slope == pytest.approx([0.5, 0.5, -MEAN / 3, -MEAN / 3, -MEAN / 3])
    assert figures["ratio_sum"] == pytest.approx(2 + 3 * MEAN)
    assert (figures["clipped_low"], figures["clipped_high"]) == (0, 0)


def test_who_moved_too_far_is_cut_with_all_its_tokens() -> None:
    """Better, and likelier by more than the clip: no token of it is pushed on."""
    loss, slope, figures = slopes(micro_batch((1.0, 1.0)), clip=(3e-4, 4e-4))
    assert loss == pytest.approx(-(1.0 + 1.0004))
    assert slope == pytest.approx([0.5, 0.5, 0.0, 0.0, 0.0])
    assert figures["clipped_high"] == 3


def test_tokens_that_are_not_trained_on_are_no_part_of_the_mean() -> None:
    """A tool's answer between two turns says nothing of the policy, however unlikely it is."""
    _, slope, _ = slopes(micro_batch((1.0, -1.0), mask=torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0])))
    mean = 1.5**0.5
    assert slope == pytest.approx([0.5, 0.5, -mean / 2, 0.0, -mean / 2])


def test_the_divergence_is_weighed_by_completion_too() -> None:
    """As TRL has it: the KL term shares the mean of its loss."""
    reference = torch.tensor([-1.5, -2.0, -3.5, -4.0, -4.0])
    tokens = micro_batch((1.0, -1.0), logprob=reference)
    with_kl, _, figures = slopes(tokens, kl=0.1)
    without, _, _ = slopes(tokens)
    each = k3(tokens.logp.detach(), reference)
    assert with_kl - without == pytest.approx(0.1 * float(each[:2].mean() + each[2:].mean()), rel=1e-4)
    assert math.isclose(float(figures["kl_sum"]), float(each.sum()), rel_tol=1e-5)
