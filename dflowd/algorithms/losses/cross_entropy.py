"""Supervised fine-tuning: cross-entropy on demonstrations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dflowd.algorithms.terms.tokens import Sums, Tokens


def cross_entropy(tokens: Tokens, settings: Mapping[str, Any]) -> tuple[Tensor, Sums]:
    """Of the demonstrations' answers. Returns [], a sum that is divided by the step's tokens; it has no settings."""
    return -(tokens.logp * tokens.weight).sum(), {}
