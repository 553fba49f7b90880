"""REINFORCE++ without a baseline (arXiv 2501.03262): what came from each token on, and nobody expects any."""

from __future__ import annotations

import numpy as np

from .gae import Lengths, Numbers, generalized


def returns(rewards: Numbers, lengths: Lengths, gamma: float) -> Numbers:
    """G_t = r_t + gamma G_{t+1}. With `gamma` 1, the reward r at the last token and each token's payment for its
    distance from the reference in the rewards, it is the paper's r - beta * (sum of KL(i) from t on); what the paper
    does then, whitening over the batch, is `whiten`.

    rewards: [tokens], completions one behind the other; lengths: tokens of each. Returns [tokens].
    """
    return generalized(rewards, np.zeros(len(rewards)), lengths, gamma, 1.0)
