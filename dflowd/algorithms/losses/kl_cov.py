"""KL-Cov ("The Entropy Mechanism of Reinforcement Learning", arXiv 2505.22617): the tokens that would take the most
entropy are held near the policy that sampled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, exp

from dflowd.algorithms.terms.ratio import Gain, gain_sums, log_ratio
from dflowd.algorithms.terms.regularization import regularized
from dflowd.algorithms.terms.tokens import Sums, Tokens


def kl_cov(tokens: Tokens, settings: Mapping[str, Any]) -> tuple[Tensor, Sums]:
    """r A, less `penalty` times |ln r| at the tokens of the column `picked`
    (terms/covariance.py:largest). At a step's first update r is 1, so that it acts from the second one on.

    `settings`: `share`, `penalty`, and those of `regularized`. Returns the loss [], a part of a sum over the step that
    is divided by its trained tokens, and its figures, in which a picked token counts as cut high.
    """
    moved = log_ratio(tokens.logp, tokens["old_logprob"])
    ratio, picked = exp(moved), tokens["picked"]
    gain = ratio * tokens["advantage"] - settings["penalty"] * picked * moved.abs()
    each, figures = regularized(gain, tokens, settings)
    told = gain_sums(Gain(gain, ratio, torch.zeros_like(picked, dtype=torch.bool), picked > 0))
    return -(each * tokens.weight).sum(), told | figures
