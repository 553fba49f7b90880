"""Clipped policy gradient with policy drift (CPGD, arXiv 2505.12504): the logarithm of the ratio in place of the ratio,
whose variance ends trainings, and a pull back to the policy that sampled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, exp, minimum

from dflowd.algorithms.terms.ratio import Gain, gain_sums, log_ratio
from dflowd.algorithms.terms.regularization import regularized
from dflowd.algorithms.terms.tokens import Sums, Tokens

MOST_DRIFT = 2.0  # of the ratio above 1: what is farther off is not pulled harder (as the authors' code has it)


def cpgd(tokens: Tokens, settings: Mapping[str, Any]) -> tuple[Tensor, Sums]:
    """Token by token min(ln r A, clamp(ln r) A), less `drift` times KL(old policy, policy), whose gradient is
    (r - 1) times that of the log-probability (k3's, bounded above).

    `settings`: `clip`, how far r may fall below and rise above 1; `drift`; and those of `regularized`. Returns the loss
    [], a part of a sum over the step that is divided by its trained tokens, and its figures. The old log-probability
    in ln r is left out of the loss's value, as it has no gradient.
    """
    below, above = settings["clip"]
    old, advantage = tokens["old_logprob"], tokens["advantage"]
    ratio = exp(log_ratio(tokens.logp, old)).detach()
    bounded = tokens.logp.clamp(old + _log(1 - below), old + math.log1p(above))
    gain = minimum(tokens.logp * advantage, bounded * advantage)
    drift = (ratio - 1).clamp(max=MOST_DRIFT) * tokens.logp
    each, figures = regularized(gain - settings["drift"] * drift, tokens, settings)
    cut_low, cut_high = (ratio < 1 - below) & (advantage < 0), (ratio > 1 + above) & (advantage > 0)
    return -(each * tokens.weight).sum(), gain_sums(Gain(gain, ratio, cut_low, cut_high)) | figures


def _log(ratio: float) -> float:
    return math.log(ratio) if ratio > 0 else -math.inf
