"""Group policy gradient (GPG, arXiv 2504.02546): the plain policy gradient, without a ratio and so without a clip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dflowd.algorithms.terms.regularization import regularized
from dflowd.algorithms.terms.tokens import Sums, Tokens


def gpg(tokens: Tokens, settings: Mapping[str, Any]) -> tuple[Tensor, Sums]:
    """`settings`: those of `regularized`. Returns the loss [], a part of a sum over the step that is
    divided by its trained tokens, and its figures.

    The paper's factor for groups that teach nothing is what `drop_flat_groups` of `advantage` does: dropped tokens are
    not among those that the sum is divided by.
    """
    each, figures = regularized(tokens.logp * tokens["advantage"], tokens, settings)
    return -(each * tokens.weight).sum(), figures
