"""REINFORCE leave-one-out (Ahmadian et al., "Back to Basics", arXiv 2402.14740)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .flat import Rewards, Sizes, flat_groups


def leave_one_out(rewards: Rewards, sizes: Sizes | None = None) -> npt.NDArray[np.float64]:
    """Reward minus the mean of the group's other completions: a baseline that no completion is part of itself, so that
    the gradient has no bias.

    rewards: [groups, samples]. Returns the same shape; 0 in flat groups, such as those of one completion. `sizes`: as
    in `flat_groups`.
    """
    wide = rewards.astype(np.float64)
    others = max(1, wide.shape[1] - 1)
    advantages = wide - (wide.sum(1, keepdims=True) - wide) / others
    advantages[flat_groups(rewards, sizes)] = 0.0
    return np.asarray(advantages, np.float64)
