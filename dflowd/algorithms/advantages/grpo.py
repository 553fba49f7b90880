"""Group relative advantages (DeepSeekMath, arXiv 2402.03300, section 4.1.2)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .flat import Rewards, Sizes, flat_groups, group_sizes

SPREAD_FLOOR = 1e-6  # times the group's size, added to its deviation: 1e-6 for rewards of 0 and 1, as in most others


def group_advantage(rewards: Rewards, scale: str, ddof: int = 0, sizes: Sizes | None = None) -> npt.NDArray[np.float64]:
    """Reward minus the group's mean, over its deviation where `scale` is "std" ("none": as it is).

    rewards: [groups, samples]. Returns the same shape; 0 in flat groups. `ddof`: 0 for the population's deviation, 1
    for Bessel's correction, as in TRL and verl. `sizes`: as in `flat_groups`; so an advantage does not depend on the
    unit of the reward.
    """
    wide = rewards.astype(np.float64)
    size = group_sizes(rewards) if sizes is None else sizes
    flat = flat_groups(rewards, size)
    centred = wide - wide.mean(1, keepdims=True)
    if scale == "std":
        divisor = wide.std(1, ddof=min(ddof, wide.shape[1] - 1)) + SPREAD_FLOOR * size
        centred /= np.where(flat, 1.0, divisor)[:, None]
    centred[flat] = 0.0
    return np.asarray(centred, np.float64)
