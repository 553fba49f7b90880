"""Dr. GRPO: GRPO without its two biases ("Understanding R1-Zero-Like Training", arXiv 2503.20783).

A token's share is the same in a short completion as in a long one, and in a step of short ones as in a step of long
ones: what the sum is divided by is a constant. The other bias, towards prompts whose rewards differ little, is in the
advantage: `scale: none` has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dflowd.algorithms.terms.tokens import Sums, Tokens

from .grpo import clipped


def dr_grpo(tokens: Tokens, settings: Mapping[str, Any]) -> tuple[Tensor, Sums]:
    """`settings` as of `clipped`. Returns the loss [], a part of a sum over the step that is divided by the most
    tokens that its completions may have, and its figures."""
    return clipped(tokens, settings, tokens.weight)
