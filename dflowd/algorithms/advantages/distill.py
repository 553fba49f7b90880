"""On-policy distillation: a student learns from what a teacher thinks of the student's own words (GKD, arXiv
2306.13649, with the reverse KL and rollouts of the student alone; by sampled tokens as in "On-Policy Distillation",
Thinking Machines Lab, 2025)."""

from __future__ import annotations

from .gae import Lengths, Numbers
from .reinforce import returns


def distilled(rewards: Numbers, lengths: Lengths) -> Numbers:
    """Of each token ln p_teacher - ln p_student, the reward that it has in `rewards`; what comes later counts nothing
    (a discount of 0). In the mean over the student's tokens the policy gradient is that of the reverse KL at each place
    that the student came to, with the way there held fixed, as GKD holds it.

    rewards: [tokens], completions one behind the other; lengths: tokens of each. Returns [tokens].
    """
    return returns(rewards, lengths, 0.0)
