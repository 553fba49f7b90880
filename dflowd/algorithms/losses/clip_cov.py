"""Clip-Cov ("The Entropy Mechanism of Reinforcement Learning", arXiv 2505.22617): some of the tokens that would take
the most entropy give no gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dflowd.algorithms.terms.ratio import Gain, clipped_gain, gain_sums
from dflowd.algorithms.terms.regularization import regularized
from dflowd.algorithms.terms.tokens import Sums, Tokens


def clip_cov(tokens: Tokens, settings: Mapping[str, Any]) -> tuple[Tensor, Sums]:
    """Clipped gains, without those of the column `picked` (terms/covariance.py:drawn).

    `settings`: `clip`, `share`, `bounds`, and those of `regularized`. Returns the loss [], a part of a sum over the
    step that is divided by its trained tokens, and its figures, in which a picked token counts as cut high.
    """
    low, high = settings["clip"]
    gain = clipped_gain(tokens.logp, tokens["old_logprob"], tokens["advantage"], (low, high))
    kept = 1 - tokens["picked"]
    each, figures = regularized(gain.gain * kept, tokens, settings)
    told = gain_sums(Gain(gain.gain, gain.ratio, gain.cut_low, gain.cut_high | (kept == 0)))
    return -(each * tokens.weight).sum(), told | figures
