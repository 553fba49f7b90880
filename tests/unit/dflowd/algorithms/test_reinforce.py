"""REINFORCE++ without a baseline, by its formula."""

from __future__ import annotations

import numpy as np
import pytest

from dflowd.algorithms.advantages.reinforce import returns


def test_a_token_has_the_reward_less_what_it_and_those_after_it_pay() -> None:
    """The paper's advantage before it is whitened: r - beta * sum of KL(i) over i from t on, of each completion."""
    beta, reward = 0.1, np.array([1.0, -2.0])
    apart = np.array([0.5, -0.25, 1.0, 0.25, 0.75])
    rewards = -beta * apart
    rewards[[2, 4]] += reward
    found = returns(rewards, np.array([3, 2], np.int32), 1.0)
    paper = [1 - beta * apart[at:3].sum() for at in range(3)] + [-2 - beta * apart[at:].sum() for at in (3, 4)]
    assert found == pytest.approx(paper)


def test_a_discount_counts_what_comes_later_for_less() -> None:
    assert returns(np.array([0, 0, 1.0]), np.array([3], np.int32), 0.5).tolist() == [0.25, 0.5, 1.0]
