"""Which tokens take the most entropy from a policy: those with a large covariance of log-probability and advantage
("The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models", arXiv 2505.22617, section 4).

The paper picks among all tokens of a batch by the probabilities of the policy that is being trained. Here a batch is a
group, and the probabilities are those by which it was sampled: so what is picked is a function of sealed data, and not
of how a step is cut into leaves and micro-batches. A share of a group may be less than a token; it is then picked as
often as the share says, by chance that follows from the group's own tokens.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Picked = npt.NDArray[np.bool_]


def covariances(logp: Numbers, advantages: Numbers) -> Numbers:
    """Of each token of a group, [tokens]; both arguments [tokens], of those that are trained on."""
    return np.asarray((logp - logp.mean()) * (advantages - advantages.mean()), np.float64)


def largest(logp: Numbers, advantages: Numbers, share: float, draws: Numbers) -> Picked:
    """The `share` of tokens with the largest covariance (KL-Cov), [tokens]. `draws`: [1 + tokens] in (0, 1)."""
    picked = np.zeros(len(logp), np.bool_)
    picked[np.argsort(-covariances(logp, advantages), kind="stable")[: _count(share, draws)]] = True
    return picked


def drawn(logp: Numbers, advantages: Numbers, share: float, bounds: tuple[float, float], draws: Numbers) -> Picked:
    """As many tokens as the `share` of all, drawn among those whose covariance is within the bounds (Clip-Cov),
    [tokens]. `draws`: as of `largest`."""
    found = covariances(logp, advantages)
    within = np.flatnonzero((found > bounds[0]) & (found < bounds[1]))
    picked = np.zeros(len(logp), np.bool_)
    picked[within[np.argsort(draws[1:][within], kind="stable")][: _count(share, draws)]] = True
    return picked


def _count(share: float, draws: Numbers) -> int:
    return int(np.floor(share * (len(draws) - 1) + draws[0]))
