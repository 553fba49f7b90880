"""The probability ratio of new and old policy, and its clipped gain (PPO, arXiv 1707.06347 eq. 7; dual clip, arXiv
1912.09729 eq. 5)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, exp, minimum, where

from .tokens import Sums

MOST_MOVED = 20.0  # nats, as in verl: float32 holds e^88, and a step's sums of squares of it no more than e^44


def log_ratio(logp: Tensor, logp_old: Tensor) -> Tensor:
    """ln r of each token, [tokens] float32, at most MOST_MOVED from 0. A clip bounds r on the side to which an
    advantage drives it; on the other side one token could make a step infinite. What is cut here gives no gradient."""
    return (logp - logp_old).clamp(-MOST_MOVED, MOST_MOVED)


@dataclass(frozen=True, slots=True)
class Gain:
    """All [tokens]; `cut_low`, `cut_high` are bool: the gain was cut there, so the token gives no gradient."""

    gain: Tensor
    ratio: Tensor
    cut_low: Tensor
    cut_high: Tensor


def clipped_gain(
    logp: Tensor, logp_old: Tensor, advantage: Tensor, clip: tuple[float, float], dual_clip: float | None = None
) -> Gain:
    """min(r A, clamp(r) A) for each token. All [tokens] float32; `clip`: how far r may fall below and rise above 1.
    `dual_clip`: the most that r counts where A is negative, so that no gain is below `dual_clip` times A. What it cuts
    is counted as cut high."""
    low, high = 1 - clip[0], 1 + clip[1]
    ratio = exp(log_ratio(logp, logp_old))
    bounded = ratio if dual_clip is None else where(advantage < 0, ratio.clamp(max=dual_clip), ratio)
    gain = minimum(bounded * advantage, ratio.clamp(low, high) * advantage)
    cut_high = (ratio > high) & (advantage > 0)
    if dual_clip is not None:
        cut_high |= (ratio > dual_clip) & (advantage < 0)
    return Gain(gain, ratio, (ratio < low) & (advantage < 0), cut_high)


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
