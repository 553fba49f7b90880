"""Proximal policy optimisation (arXiv 1707.06347): the clipped surrogate, whose advantages are of each token, by a
critic (advantages/gae.py) that is trained beside it (value.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dflowd.algorithms.terms.tokens import Sums, Tokens

from .grpo import clipped


def ppo(tokens: Tokens, settings: Mapping[str, Any]) -> tuple[Tensor, Sums]:
    """Eq. 7 as a sum over tokens. `settings`: `clip` and `kl`. Returns the loss [], a part of a sum over the step that
    is divided by its trained tokens, and its figures."""
    return clipped(tokens, settings, tokens.weight)
