"""Preferences among a policy's own completions: the best of a group and its worst (online DPO, arXiv 2402.04792, with a
score in the annotator's place)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .flat import Rewards, Sizes, flat_groups


def best_and_worst(rewards: Rewards, sizes: Sizes | None = None) -> npt.NDArray[np.float64]:
    """1 for the completion of a group with the largest reward and -1 for that with the least, the first of like ones;
    NaN for the others, and throughout a flat group: nobody trains on them.

    rewards: [groups, samples]. Returns the same shape. `sizes`: as in `flat_groups`.
    """
    found = np.full(rewards.shape, np.nan)
    groups = np.flatnonzero(~flat_groups(rewards, sizes))
    found[groups, rewards[groups].argmax(1)] = 1.0
    found[groups, rewards[groups].argmin(1)] = -1.0
    return found
