"""Estimators of the KL divergence from sampled tokens (Schulman, "Approximating KL Divergence", 2020)."""

from __future__ import annotations

from torch import Tensor, exp

from .tokens import Sums


def k3(logp: Tensor, logp_ref: Tensor) -> Tensor:
    """KL(policy, reference) per token, [tokens] float32: unbiased for samples of the policy, never negative."""
    return exp(logp_ref - logp) - (logp_ref - logp) - 1


def less_kl(gain: Tensor, logp: Tensor, logp_ref: Tensor | None, beta: float) -> Tensor:
    """What each token gains, less `beta` times its divergence from the reference, where there is one; [tokens]."""
    return gain if logp_ref is None or not beta else gain - beta * k3(logp, logp_ref)


def kl_sums(logp: Tensor, logp_ref: Tensor) -> Sums:
    """Figures of the divergence; arguments as in `k3`."""
    return {"kl_sum": k3(logp.detach(), logp_ref).double().sum()}
