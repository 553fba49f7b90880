"""Supervised fine-tuning: cross-entropy on demonstrations."""

from __future__ import annotations

from torch import Tensor


def cross_entropy(logp: Tensor) -> Tensor:
    """logp: [tokens] float32 of the demonstrations' answers. Returns [], a sum that is divided by the step's tokens."""
    return -logp.sum()
