"""Group sequence policy optimisation (arXiv 2507.18071): the ratio, and so the clip, is a completion's and not a
token's, as the reward is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dflowd.algorithms.terms.completions import mean_of_completion, trained_tokens
from dflowd.algorithms.terms.ratio import clipped_gain, gain_sums
from dflowd.algorithms.terms.regularization import regularized
from dflowd.algorithms.terms.tokens import Sums, Tokens


def gspo(tokens: Tokens, settings: Mapping[str, Any]) -> tuple[Tensor, Sums]:
    """Eq. 5 as a sum over tokens, each with its completion's ratio (eq. 7) and one share of that completion.

    `settings`: `clip`, and those of `regularized`. Returns the loss [], a part of a sum over the step that is divided
    by its trained completions, and its figures, in which each token has its completion's ratio.
    """
    below, above = settings["clip"]
    old = tokens["old_logprob"]
    moved = mean_of_completion(tokens.logp - old, tokens)
    gain = clipped_gain(old + moved, old, tokens["advantage"], (below, above))
    each, figures = regularized(gain.gain, tokens, settings)
    return -(each * (tokens.weight / trained_tokens(tokens))).sum(), gain_sums(gain) | figures
