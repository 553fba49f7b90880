"""A reward model's loss by hand: pairs within a group, of which the one with more advantage is preferred."""

from __future__ import annotations

import math

import torch

from dflow_protocols.metrics import finish
from dflowd.algorithms.losses.value_heads.bradley_terry import bradley_terry
from dflowd.algorithms.terms.tokens import Sums, Tokens


def loss_of(
    values: torch.Tensor, liked: list[float], lengths: list[int], groups: list[int]
) -> tuple[torch.Tensor, Sums]:
    """`liked`, `lengths`, `groups`: by completion; a token each of `values`."""
    counts = torch.tensor(lengths)
    samples = torch.arange(len(lengths)).repeat_interleave(counts)
    return bradley_terry(
        Tokens(
            values,
            counts[samples].float(),
            {"advantage": torch.tensor(liked)[samples]},
            samples,
            groups=torch.tensor(groups)[samples],
        ),
        {},
    )


def test_the_preferred_one_of_a_pair_is_raised_by_how_unlikely_it_was() -> None:
    """Eq. 1 of the paper, at the last tokens: what is said before moves nothing."""
    values = torch.tensor([9.0, 1.0, -7.0, 3.0], requires_grad=True)
    loss, sums = loss_of(values, [0.5, -0.5], [2, 2], [0, 0])
    (slope,) = torch.autograd.grad(loss, values)
    unlikely = 1 / (1 + math.exp(1.0 - 3.0))
    assert math.isclose(loss.item(), 2 * math.log1p(math.exp(2.0)), rel_tol=1e-6), "for each of two completions"
    torch.testing.assert_close(slope, torch.tensor([0.0, -2 * unlikely, 0.0, 2 * unlikely]))
    figures = finish({name: float(value) for name, value in sums.items()})
    assert (figures["pair_accuracy"], figures["pair_margin_mean"]) == (0.0, -2.0)


def test_a_group_counts_by_its_completions_and_its_pairs_alike() -> None:
    """All pairs of a prompt that differ share its weight; those that are equally good are no pair."""
    rewards = torch.tensor([0.3, -0.2, 1.0])
    liked = [1.0, 0.0, 0.0]
    expected = 3 * sum(math.log1p(math.exp(float(worse - rewards[0]))) for worse in rewards[1:]) / 2
    loss, sums = loss_of(rewards, liked, [1, 1, 1], [4, 4, 4])
    assert math.isclose(float(loss), expected, rel_tol=1e-6)
    assert sums["pairs"] == 2


def test_completions_of_two_prompts_are_never_compared() -> None:
    """What is good for one prompt says nothing of another; a group of which all are alike teaches nothing."""
    loss, sums = loss_of(torch.tensor([1.0, 2.0, 3.0]), [0.0, 0.0, 5.0], [1, 1, 1], [0, 0, 1])
    assert (float(loss), sums["pairs"]) == (0.0, 0.0)


def test_two_groups_beside_each_other_add_up() -> None:
    """A step's sum does not depend on which groups share a pass."""
    values = torch.tensor([0.1, 0.4, -0.3, 0.8])
    both, _ = loss_of(values, [1.0, 0.0, 0.0, 1.0], [1, 1, 1, 1], [0, 0, 1, 1])
    apart = [loss_of(values[at : at + 2], liked, [1, 1], [0, 0])[0] for at, liked in ((0, [1.0, 0.0]), (2, [0.0, 1.0]))]
    torch.testing.assert_close(both, apart[0] + apart[1])
