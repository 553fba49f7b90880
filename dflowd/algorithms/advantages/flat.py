"""Groups whose rewards are alike: they teach nothing, whatever an advantage is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FLAT_SPREAD = 2.0**-22  # times the group's size: two units of float32 up or down, which rounding alone can make

Rewards = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Sizes = npt.NDArray[np.float64]


def group_sizes(rewards: Rewards) -> Sizes:
    """The largest absolute reward of each group, [groups]. rewards: [groups, samples]."""
    return np.asarray(np.abs(rewards.astype(np.float64)).max(1))


def flat_groups(rewards: Rewards, sizes: Sizes | None = None) -> npt.NDArray[np.bool_]:
    """Whether the rewards of a group are alike within float32's rounding, [groups]. rewards: [groups, samples].
    `sizes`: [groups], what rewards of the group are large against; without it the largest of their absolute values."""
    wide = rewards.astype(np.float64)
    size = group_sizes(rewards) if sizes is None else sizes
    return np.asarray(wide.max(1) - wide.min(1) <= FLAT_SPREAD * size)
