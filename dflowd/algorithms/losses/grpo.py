"""Group relative policy optimisation (DeepSeekMath, arXiv 2402.03300), with DAPO's token mean (arXiv 2503.14476)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dflowd.algorithms.losses.kl import kl_sums, less_kl
from dflowd.algorithms.losses.ratio import Gain, clipped_gain, gain_sums
from dflowd.algorithms.losses.tokens import Sums, Tokens


def grpo_loss(
    logp: Tensor,
    logp_old: Tensor,
    logp_ref: Tensor | None,
    advantage: Tensor,
    weight: Tensor,
    *,
    clip: tuple[float, float],
    beta: float,
) -> tuple[Tensor, Gain]:
    """Eq. 3 as a sum, KL by eq. 4. All tensors [tokens] float32, completions only, packed.

    weight: 1 for a mean over tokens, 1 / length of its sequence for a mean over sequences. Returns the loss [], a part
    of a sum over the step that is divided by its tokens (or sequences) later, and the gains.
    """
    gain = clipped_gain(logp, logp_old, advantage, clip)
    return -(less_kl(gain.gain, logp, logp_ref, beta) * weight).sum(), gain


def grpo(tokens: Tokens, settings: Mapping[str, Any]) -> tuple[Tensor, Sums]:
    """`settings`: `clip`, `mean` (`token` or `sequence`) and `kl`."""
    weight = tokens.weight / tokens.lengths if settings["mean"] == "sequence" else tokens.weight
    return clipped(tokens, settings, weight)


def clipped(tokens: Tokens, settings: Mapping[str, Any], weight: Tensor) -> tuple[Tensor, Sums]:
    """`grpo_loss` of a micro-batch's columns, with its figures. `weight`: [tokens], of each one."""
    below, above = settings["clip"]
    reference = tokens.find("logprob")
    loss, gain = grpo_loss(
        tokens.logp,
        tokens["old_logprob"],
        reference,
        tokens["advantage"],
        weight,
        clip=(below, above),
        beta=settings["kl"],
    )
    return loss, gain_sums(gain) | ({} if reference is None else kl_sums(tokens.logp, reference))
