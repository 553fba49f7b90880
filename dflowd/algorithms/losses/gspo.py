"""Group sequence policy optimisation (arXiv 2507.18071): the ratio, and so the clip, is a completion's and not a
token's, as the reward is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dflowd.algorithms.losses.completions import mean_of_completion, trained_tokens
from dflowd.algorithms.losses.kl import kl_sums, less_kl
from dflowd.algorithms.losses.ratio import clipped_gain, gain_sums
from dflowd.algorithms.losses.tokens import Sums, Tokens


def gspo(tokens: Tokens, settings: Mapping[str, Any]) -> tuple[Tensor, Sums]:
    """Eq. 5 as a sum over tokens, each with its completion's ratio (eq. 7) and one share of that completion.

    `settings`: `clip` and `kl`. Returns the loss [], a part of a sum over the step that is divided by its trained
    completions, and its figures, in which each token has its completion's ratio.
    """
    below, above = settings["clip"]
    old, reference = tokens["old_logprob"], tokens.find("logprob")
    moved = mean_of_completion(tokens.logp - old, tokens)
    gain = clipped_gain(old + moved, old, tokens["advantage"], (below, above))
    each = less_kl(gain.gain, tokens.logp, reference, settings["kl"])
    loss = -(each * (tokens.weight / trained_tokens(tokens))).sum()
    return loss, gain_sums(gain) | ({} if reference is None else kl_sums(tokens.logp, reference))
