"""Clip-Cov and KL-Cov by hand: which tokens are picked, and what becomes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dflowd.algorithms.losses.clip_cov import clip_cov
from dflowd.algorithms.losses.kl_cov import kl_cov
from dflowd.algorithms.terms.covariance import covariances, drawn, largest
from dflowd.algorithms.terms.tokens import Tokens
from dflowd.training.objective.picking import pick

LOGP = np.array([-0.1, -3.0, -0.2, -2.0])
ADVANTAGES = np.array([1.0, 1.0, -1.0, -1.0])
HALF = np.full(5, 0.5)


def test_a_covariance_is_large_where_what_is_likely_is_good_or_what_is_unlikely_is_bad() -> None:
    """These are the tokens by which a policy becomes surer of itself."""
    found = covariances(LOGP, ADVANTAGES)
    assert found == pytest.approx((LOGP - LOGP.mean()) * ADVANTAGES)
    assert (found > 0).tolist() == [True, False, False, True]


@pytest.mark.parametrize(("share", "picked"), [(0.25, [0]), (0.5, [0, 3]), (1.0, [0, 1, 2, 3])])
def test_the_largest_are_as_many_as_the_share_says(share: float, picked: list[int]) -> None:
    assert np.flatnonzero(largest(LOGP, ADVANTAGES, share, HALF)).tolist() == picked


def test_a_share_of_less_than_a_token_is_picked_as_often_as_it_says() -> None:
    """Two in ten thousand of a group of a hundred tokens is a token in every fiftieth group."""
    draws = np.random.default_rng(0).random((4000, 5))
    assert np.mean([largest(LOGP, ADVANTAGES, 0.05, each).sum() for each in draws]) == pytest.approx(0.2, abs=0.02)


def test_tokens_are_drawn_among_those_within_the_bounds() -> None:
    """By the smallest of their draws."""
    logp, advantages = np.array([-4.0, 0.0, -4.0, 0.0, -2.0]), np.array([-1.0, 1.0, -1.0, 1.0, 0.0])
    draws = np.array([0.0, 0.9, 0.1, 0.3, 0.7, 0.0])  # the first one is of the count
    assert np.flatnonzero(drawn(logp, advantages, 0.4, (1.0, 5.0), draws)).tolist() == [1, 2]
    assert not drawn(logp, advantages, 0.4, (5.0, 9.0), draws).any()


def test_what_is_picked_follows_from_the_group_alone() -> None:
    """However groups are dealt to leaves; tokens that are not trained on are neither picked nor compared with."""
    drew = np.random.default_rng(1)
    said = [drew.integers(0, 99, length).astype(np.int32) for length in (3, 5, 4, 2)]
    columns: dict[str, list[Any]] = {
        "sampled_logprob": [-drew.random(len(row)) for row in said],
        "advantage": [1.0, -1.0, 0.5, -0.5],
        "mask": [np.array([0, 1, 1]), *(np.ones(len(row)) for row in said[1:])],
    }
    whole = pick("kl_cov", {"share": 0.3}, [0, 0, 1, 1], said, columns)
    assert whole is not None
    second = {name: rows[2:] for name, rows in columns.items()}
    alone = pick("kl_cov", {"share": 0.3}, [0, 0], said[2:], second)
    assert alone is not None
    assert [row.tolist() for row in whole[2:]] == [row.tolist() for row in alone]
    assert [len(row) for row in whole] == [3, 5, 4, 2]
    assert whole[0][0] == 0
    assert sum(row.sum() for row in whole) > 0
    assert pick("grpo", {}, [0, 0, 1, 1], said, columns) is None


def micro_batch(picked: tuple[float, float]) -> Tokens:
    logp = torch.tensor([-1.0, -2.0], requires_grad=True)
    given = {"advantage": torch.tensor([1.0, 1.0]), "picked": torch.tensor(picked)}
    given["sampled_logprob"] = logp.detach() - torch.tensor([1.1, 1.1]).log()
    return Tokens(logp, torch.tensor([2.0, 2.0]), given, torch.zeros(2).long())


def test_clip_cov_takes_the_gradient_from_what_is_picked() -> None:
    """The rest is PPO's."""
    tokens = micro_batch((1.0, 0.0))
    loss, figures = clip_cov(tokens, {"clip": (0.2, 0.2), "kl": 0.0})
    (slope,) = torch.autograd.grad(-loss, tokens.logp)
    assert slope.tolist() == pytest.approx([0.0, 1.1])
    assert figures["clipped_high"] == 1


def test_kl_cov_holds_back_what_is_picked() -> None:
    """By the distance that the authors' code takes."""
    tokens = micro_batch((1.0, 0.0))
    loss, _ = kl_cov(tokens, {"penalty": 0.5, "kl": 0.0})
    (slope,) = torch.autograd.grad(-loss, tokens.logp)
    assert slope.tolist() == pytest.approx([1.1 - 0.5, 1.1])
