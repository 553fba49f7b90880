"""Geometric-mean policy optimisation (GMPO, arXiv 2507.20673): a completion's ratio is the geometric mean of its
tokens', each of them clipped by itself, so that no outlier among them moves it far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, exp

from dflowd.algorithms.terms.completions import mean_of_completion, trained_tokens
from dflowd.algorithms.terms.ratio import Gain, gain_sums, log_ratio
from dflowd.algorithms.terms.regularization import regularized
from dflowd.algorithms.terms.tokens import Sums, Tokens


def gmpo(tokens: Tokens, settings: Mapping[str, Any]) -> tuple[Tensor, Sums]:
    """A sum over tokens, each with its completion's ratio and one share of that completion.

    `settings`: `clip`, how far the logarithm of a token's ratio may fall and rise before it is cut on the side to which
    the advantage drives it; and those of `regularized`. Returns the loss [], a part of a sum over the step that is
    divided by its trained completions, and its figures, which are of the tokens' own ratios.
    """
    below, above = settings["clip"]
    advantage = tokens["advantage"]
    moved = log_ratio(tokens.logp, tokens["old_logprob"])
    cut_low, cut_high = (moved < -below) & (advantage < 0), (moved > above) & (advantage > 0)
    kept = moved.masked_fill(cut_low, -below).masked_fill(cut_high, above)
    gain = exp(mean_of_completion(kept, tokens)) * advantage
    each, figures = regularized(gain, tokens, settings)
    loss = -(each * (tokens.weight / trained_tokens(tokens))).sum()
    return loss, gain_sums(Gain(gain, exp(moved), cut_low, cut_high)) | figures
