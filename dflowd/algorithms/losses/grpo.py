"""Group relative policy optimisation (DeepSeekMath, arXiv 2402.03300), with DAPO's token mean (arXiv 2503.14476)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dflowd.algorithms.terms.ratio import clipped_gain, gain_sums
from dflowd.algorithms.terms.regularization import regularized
from dflowd.algorithms.terms.tokens import Sums, Tokens


def grpo(tokens: Tokens, settings: Mapping[str, Any]) -> tuple[Tensor, Sums]:
    """`mean: sequence` is the paper's, by which each completion counts alike; by `mean: token` each token does."""
    weight = tokens.weight / tokens.lengths if settings["mean"] == "sequence" else tokens.weight
    return clipped(tokens, settings, weight)


def clipped(tokens: Tokens, settings: Mapping[str, Any], weight: Tensor) -> tuple[Tensor, Sums]:
    """Eq. 3 as a sum, KL by eq. 4. `settings`: `clip`, `dual_clip`, and those of `regularized`.

    weight: [tokens], 1 for a mean over tokens, 1 / length of its completion for a mean over completions. Returns the
    loss [], a part of a sum over the step that is divided by its tokens (or completions) later, and its figures.
    """
    low, high = settings["clip"]
    gain = clipped_gain(tokens.logp, tokens["old_logprob"], tokens["advantage"], (low, high), settings.get("dual_clip"))
    each, figures = regularized(gain.gain, tokens, settings)
    return -(each * weight).sum(), gain_sums(gain) | figures
