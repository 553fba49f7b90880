"""The probability ratio of new and old policy, and its clipped gain (PPO, arXiv 1707.06347 eq. 7)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, exp, minimum

from .tokens import Sums


@dataclass(frozen=True, slots=True)
class Gain:
    """All [tokens]; `cut_low`, `cut_high` are bool: the gain was cut there, so the token gives no gradient."""

    gain: Tensor
    ratio: Tensor
    cut_low: Tensor
    cut_high: Tensor


def clipped_gain(logp: Tensor, logp_old: Tensor, advantage: Tensor, clip: tuple[float, float]) -> Gain:
    """min(r A, clamp(r) A) for each token. All [tokens] float32; `clip`: how far r may fall below and rise above 1."""
    low, high = 1 - clip[0], 1 + clip[1]
    ratio = exp(logp - logp_old)
    gain = minimum(ratio * advantage, ratio.clamp(low, high) * advantage)
    return Gain(gain, ratio, (ratio < low) & (advantage < 0), (ratio > high) & (advantage > 0))


def gain_sums(gain: Gain) -> Sums:
    """Figures of the ratio, and of how often its gain was cut."""
    ratio = gain.ratio.detach().double()
    return {
        "ratio_sum": ratio.sum(),
        "ratio_count": len(ratio),
        "ratio_max": ratio.max(),
        "ratio_min": ratio.min(),
        "clipped_low": gain.cut_low.sum().double(),
        "clipped_high": gain.cut_high.sum().double(),
    }
