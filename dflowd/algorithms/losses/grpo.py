"""Group relative policy optimisation (DeepSeekMath, arXiv 2402.03300), with DAPO's token mean (arXiv 2503.14476)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..kl import k3
from ..ratio import Gain, clipped_gain

SPREAD_FLOOR = 1e-6  # times the group's size, added to its deviation: 1e-6 for rewards of 0 and 1, as in most others
FLAT_SPREAD = 2.0**-22  # times the group's size: two units of float32 up or down, which rounding alone can make

Rewards = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Sizes = npt.NDArray[np.float64]


def group_advantage(rewards: Rewards, scale: str, ddof: int = 0, sizes: Sizes | None = None) -> npt.NDArray[np.float64]:
    """Reward minus the group's mean, over its deviation where `scale` is "std" (section 4.1.2; "none": as it is).

    rewards: [groups, samples]. Returns the same shape; 0 in flat groups. `ddof`: 0 for the population's deviation, 1
    for Bessel's correction, as in TRL and verl. `sizes`: [groups], what rewards of the group are large against;
    without it the largest of their absolute values. So an advantage does not depend on the unit of the reward.
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


def group_sizes(rewards: Rewards) -> Sizes:
    """The largest absolute reward of each group, [groups]. rewards: [groups, samples]."""
    return np.asarray(np.abs(rewards.astype(np.float64)).max(1))


def flat_groups(rewards: Rewards, sizes: Sizes | None = None) -> npt.NDArray[np.bool_]:
    """Whether the rewards of a group are alike within float32's rounding. Shapes as in `group_advantage`; [groups]."""
    wide = rewards.astype(np.float64)
    size = group_sizes(rewards) if sizes is None else sizes
    return np.asarray(wide.max(1) - wide.min(1) <= FLAT_SPREAD * size)


def grpo_loss(
    logp: Tensor,
    logp_old: Tensor,
    logp_ref: Tensor | None,
    advantage: Tensor,
    weight: Tensor,
    *,
    clip: tuple[float, float],
    beta: float,
) -> tuple[Tensor, Gain]:
    """Eq. 3 as a sum, KL by eq. 4. All tensors [tokens] float32, completions only, packed.

    weight: 1 for a mean over tokens, 1 / length of its sequence for a mean over sequences. Returns the loss [], a part
    of a sum over the step that is divided by its tokens (or sequences) later, and the gains.
    """
    gain = clipped_gain(logp, logp_old, advantage, clip)
    each = gain.gain
    if logp_ref is not None and beta:
        each = each - beta * k3(logp, logp_ref)
    return -(each * weight).sum(), gain
