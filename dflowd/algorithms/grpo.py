"""Group relative policy optimisation (DeepSeekMath, arXiv 2402.03300), with DAPO's token mean (arXiv 2503.14476)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from .kl import k3
from .ratio import Gain, clipped_gain

SPREAD_FLOOR = 1e-6  # added to a group's deviation, as in most implementations


def group_advantage(rewards: npt.NDArray[np.float32], scale: str) -> npt.NDArray[np.float32]:
    """Reward minus the group's mean, over its deviation where `scale` is "std" (section 4.1.2; "none": as it is).

    rewards: [groups, samples] float32. Returns the same shape. The deviation is the population's.
    """
    wide = rewards.astype(np.float64)
    centred = wide - wide.mean(1, keepdims=True)
    if scale == "std":
        centred /= wide.std(1, keepdims=True) + SPREAD_FLOOR
    return np.asarray(centred, np.float32)


def flat_groups(rewards: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """Whether all rewards of a group are alike. rewards: [groups, samples]; returns [groups] bool."""
    return np.asarray(rewards.min(1) == rewards.max(1))


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
