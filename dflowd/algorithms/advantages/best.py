"""Rejection sampling: of what the policy said itself the best is what it learns from (RFT, arXiv 2308.01825; best of n
as in RAFT, arXiv 2304.06767; expert iteration as in ReST-EM, arXiv 2312.06585)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .flat import Rewards


def best(rewards: Rewards, keep: int | None, above: float | None) -> npt.NDArray[np.float64]:
    """1 for the `keep` completions of a group with the largest rewards (None: all of them), the first of like ones, as
    far as they earned more than `above` (None: whatever they earned). NaN for the others: nobody trains on them. With
    the plain policy gradient, 1 for an advantage is cross-entropy.

    rewards: [groups, samples]. Returns the same shape.
    """
    chosen = np.zeros(rewards.shape, np.bool_)
    order = np.argsort(-rewards, axis=1, kind="stable")
    np.put_along_axis(chosen, order[:, :keep], True, axis=1)
    if above is not None:
        chosen &= rewards > above
    return np.where(chosen, 1.0, np.nan)
