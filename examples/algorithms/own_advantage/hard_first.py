"""Group-relative advantages that count more where a prompt is hard: the fewer of its completions succeed, the more."""

from __future__ import annotations


def advantage(rewards: list[float | None], power: float = 1.0) -> list[float]:
    """Of one group, for rewards of 0 to 1: each reward less the group's mean, times the share that failed to the
    `power`. A completion without a score has None for its reward, and is left out whatever is given for it."""
    scored = [reward for reward in rewards if reward is not None]
    mean = sum(scored) / max(1, len(scored))
    return [((reward or 0.0) - mean) * (1.0 - mean) ** power for reward in rewards]
