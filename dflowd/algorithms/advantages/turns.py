"""Group relative advantages of turns: each turn of a conversation answers for what came from it on (as GTPO, arXiv
2511.14846, makes advantages of turns' discounted returns). MT-GRPO, arXiv 2505.11821, compares a turn's own reward and
the outcome's each by itself and adds the two advantages up: with `scale` "none" and `gamma` 1 that is the same, with
"std" it is not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .grpo import group_advantage

Numbers = npt.NDArray[np.float64]


def turn_advantages(rewards: Sequence[Numbers], gamma: float, scale: str) -> list[Numbers]:
    """What came from a turn on, sum of gamma^k r_{t+k} over the conversation's later turns, compared with what came
    from the turns of the same number in the group's other conversations, by GRPO's formula. A turn that only one of
    them reached is compared with nothing, and has 0.

    rewards: of each conversation of a group what its turns earned, [turns], without NaN. Returns as much.
    """
    came = [_from_on(each, gamma) for each in rewards]
    found = [np.zeros(len(each)) for each in rewards]
    for turn in range(max(map(len, came), default=0)):
        there = [at for at, each in enumerate(came) if len(each) > turn]
        compared = group_advantage(np.array([[came[at][turn] for at in there]]), scale)[0]
        for at, advantage in zip(there, compared, strict=True):
            found[at][turn] = advantage
    return found


def _from_on(rewards: Numbers, gamma: float) -> Numbers:
    came = np.zeros(len(rewards))
    later = 0.0
    for turn in reversed(range(len(rewards))):
        later = came[turn] = float(rewards[turn]) + gamma * later
    return came
