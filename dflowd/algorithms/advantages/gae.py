"""Generalized advantage estimation (Schulman et al., arXiv 1506.02438), of each token of a completion."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Lengths = npt.NDArray[np.int32]


def generalized(rewards: Numbers, values: Numbers, lengths: Lengths, gamma: float, lam: float) -> Numbers:
    """Eq. 16 backwards: A_t = d_t + gamma lam A_{t+1} with d_t = r_t + gamma V_{t+1} - V_t (eq. 9). Behind the last
    token of a completion V is 0: the episode is over, also where it was cut off, since its reward is what the cut text
    earned.

    rewards, values: [tokens], completions one behind the other; a value is of the state before its token. lengths:
    tokens of each completion. Returns [tokens]; A + V is the return that a critic learns. NaN in a reward is NaN in all
    tokens before it.
    """
    starts = np.cumsum(lengths) - lengths
    advantages = np.zeros(len(values))
    next_advantage, next_value = np.zeros(len(lengths)), np.zeros(len(lengths))
    for offset in reversed(range(int(lengths.max(initial=0)))):
        longer = np.flatnonzero(lengths > offset)
        at = starts[longer] + offset
        surprise = rewards[at] + gamma * next_value[longer] - values[at]
        next_advantage[longer] = surprise + gamma * lam * next_advantage[longer]
        next_value[longer] = values[at]
        advantages[at] = next_advantage[longer]
    return advantages
