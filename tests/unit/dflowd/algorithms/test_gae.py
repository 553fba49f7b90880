"""Generalized advantage estimation by its closed forms (arXiv 1506.02438)."""

from __future__ import annotations

import numpy as np
import pytest

from dflowd.algorithms.advantages.gae import Lengths, Numbers, generalized


def drawn() -> tuple[Numbers, Numbers, Lengths]:
    """Rewards and values of six completions one behind the other, one of them empty."""
    lengths = np.array([3, 1, 0, 7, 2, 5], np.int32)
    rng = np.random.default_rng(4)
    return rng.normal(size=lengths.sum()), rng.normal(size=lengths.sum()), lengths


def sums_of_surprises(rewards: Numbers, values: Numbers, gamma: float, lam: float) -> list[float]:
    """Eq. 16 as it stands, of one completion."""
    later = [*values, 0.0][1:]
    surprises = [r + gamma * after - v for r, v, after in zip(rewards, values, later, strict=True)]
    return [
        sum((gamma * lam) ** k * surprise for k, surprise in enumerate(surprises[at:])) for at in range(len(values))
    ]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (1.0, 0.95), (0.9, 0.5), (0.99, 0.0), (0.0, 1.0)])
def test_a_token_has_the_discounted_sum_of_the_surprises_that_follow(gamma: float, lam: float) -> None:
    """Of its own completion: no number comes over from the one that lies behind it."""
    rewards, values, lengths = drawn()
    cuts = np.cumsum(lengths)[:-1]
    each = zip(np.split(rewards, cuts), np.split(values, cuts), strict=True)
    expected = np.concatenate([sums_of_surprises(r, v, gamma, lam) for r, v in each])
    assert np.allclose(generalized(rewards, values, lengths, gamma, lam), expected, rtol=0, atol=1e-12)


def test_with_lam_1_it_is_what_came_less_what_was_expected() -> None:
    """Monte Carlo: values only take variance away, and there is no bias (eq. 18)."""
    rewards, values, lengths = drawn()
    came = np.concatenate([np.cumsum(r[::-1])[::-1] for r in np.split(rewards, np.cumsum(lengths)[:-1])])
    assert np.allclose(generalized(rewards, values, lengths, 1.0, 1.0), came - values, rtol=0, atol=1e-12)


def test_a_completion_without_a_score_spoils_no_other() -> None:
    """It has no number in any token, and is left out of training."""
    rewards, values, lengths = drawn()
    rewards[2] = np.nan
    found = generalized(rewards, values, lengths, 1.0, 0.95)
    assert np.isnan(found).tolist() == [True] * 3 + [False] * 15
