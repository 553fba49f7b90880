"""Leave-one-out advantages, by hand on small numbers."""

from __future__ import annotations

import numpy as np
import pytest

from dflowd.algorithms.advantages.grpo import group_advantage
from dflowd.algorithms.advantages.rloo import leave_one_out


def test_a_completion_is_compared_with_the_mean_of_the_others() -> None:
    """1 beside 0, 0 and 0.5 is ahead by 1 - 0.5 / 3, and each of the zeros is behind by 1.5 / 3."""
    rewards = np.array([[1, 0, 0, 0.5], [2, 4, 4, 4]], np.float32)
    assert leave_one_out(rewards)[0] == pytest.approx([5 / 6, -0.5, -0.5, 0.5 - 1 / 3])
    assert leave_one_out(rewards)[1] == pytest.approx([-2, 2 / 3, 2 / 3, 2 / 3])


def test_it_is_the_difference_from_the_groups_mean_but_for_a_factor() -> None:
    """n / (n - 1) of what GRPO has without its deviation."""
    rewards = np.random.default_rng(0).random((5, 8))
    assert leave_one_out(rewards) == pytest.approx(8 / 7 * group_advantage(rewards, "none"))


@pytest.mark.parametrize("rewards", [(0.3, 0.3, 0.3), (-7.0,), (30.000002, 30.000002, 30, 30)])
def test_a_group_without_differences_teaches_nothing(rewards: tuple[float, ...]) -> None:
    """Rounding is no difference, and one completion has no others."""
    assert not leave_one_out(np.array([rewards], np.float32)).any()
