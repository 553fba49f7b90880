"""A critic's loss (PPO, arXiv 1707.06347, eq. 9): the squared distance of its values from what came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, maximum

from dflowd.algorithms.terms.tokens import Sums, Tokens


def value(tokens: Tokens, settings: Mapping[str, Any]) -> tuple[Tensor, Sums]:
    """L^VF as a sum over tokens, times 0.5 as in OpenAI's `baselines`. Columns: `value`, what the critic said when the
    advantages were made, and `return`, both [tokens] float32.

    `settings`: `value_clip`, how far a value may move from the old one; beyond it the larger of both losses counts, so
    that moving on towards the return gains nothing (`baselines`, ppo2). Returns the loss [], a part of a sum over the
    step that is divided by its trained tokens, and its figures.
    """
    old, came, clip = tokens["value"], tokens["return"], settings["value_clip"]
    loss = (tokens.values - came).square()
    figures = _sums(old, came)
    if clip is not None:
        near = (old + (tokens.values - old).clamp(-clip, clip) - came).square()
        figures["value_clipped"] = (near > loss).sum().double()
        loss = maximum(loss, near)
    return 0.5 * (loss * tokens.weight).sum(), figures


def _sums(old: Tensor, came: Tensor) -> Sums:
    """Figures of how much of the returns the critic had foreseen, before this update."""
    wide, error = came.double(), came.double() - old.double()
    return {
        "value_count": len(came),
        "return_sum": wide.sum(),
        "return_sq_sum": wide.square().sum(),
        "value_error_sum": error.sum(),
        "value_error_sq_sum": error.square().sum(),
    }
