"""Clipped importance sampling of the policy gradient (CISPO of MiniMax-M1, arXiv 2506.13585): the ratio's share of the
gradient is bounded, and no token is left out of it, where PPO's clip drops just the rare ones that turn an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, exp

from dflowd.algorithms.terms.ratio import Gain, gain_sums, log_ratio
from dflowd.algorithms.terms.regularization import regularized
from dflowd.algorithms.terms.tokens import Sums, Tokens


def cispo(tokens: Tokens, settings: Mapping[str, Any]) -> tuple[Tensor, Sums]:
    """Eq. 4 and 5 without a lower bound, as the paper runs it. `settings`: `high`, and those of `regularized`. Returns
    the loss [], a part of a sum over the step that is divided by its trained tokens, and its figures."""
    high = settings["high"]
    ratio = exp(log_ratio(tokens.logp, tokens["old_logprob"])).detach()
    gain = ratio.clamp(max=high) * tokens["advantage"] * tokens.logp
    each, figures = regularized(gain, tokens, settings)
    own = gain_sums(Gain(each, ratio, torch.zeros_like(ratio, dtype=torch.bool), ratio > high))
    return -(each * tokens.weight).sum(), own | figures
