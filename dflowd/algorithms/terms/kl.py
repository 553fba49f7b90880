"""Estimators of the KL divergence from sampled tokens (Schulman, "Approximating KL Divergence", 2020).

A gradient goes through them where they are part of a loss; of k2 alone it is, in the mean, that of the divergence: k1's
has the mean 0, and k3's is that of the reversed divergence. With its samples weighed by the probability ratio of new
and old policy, k3 has the right one, also behind several updates (DeepSeek-V3.2, arXiv 2512.02556, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, exp

from .ratio import log_ratio


def k1(logp: Tensor, logp_ref: Tensor) -> Tensor:
    """KL(policy, reference) per token, [tokens] float32: unbiased for samples of the policy, of either sign."""
    return logp - logp_ref


def k2(logp: Tensor, logp_ref: Tensor) -> Tensor:
    """As k1; never negative, and biased where the two are far apart."""
    return (logp - logp_ref).square() / 2


def k3(logp: Tensor, logp_ref: Tensor) -> Tensor:
    """As k1; unbiased and never negative."""
    apart = log_ratio(logp_ref, logp)
    return exp(apart) - apart - 1


ESTIMATORS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"k1": k1, "k2": k2, "k3": k3}


def divergence(kind: str, logp: Tensor, logp_ref: Tensor, logp_old: Tensor) -> Tensor:
    """By one of ESTIMATORS, or by `k3_unbiased`: k3 times the ratio of the policy to the one that sampled; [tokens]."""
    if kind == "k3_unbiased":
        return exp(log_ratio(logp, logp_old)) * k3(logp, logp_ref)
    return ESTIMATORS[kind](logp, logp_ref)
