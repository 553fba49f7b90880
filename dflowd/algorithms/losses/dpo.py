"""Direct preference optimisation (arXiv 2305.18290), on pairs whose two completions lie in one micro-batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from dflowd.algorithms.terms.tokens import Sums, Tokens


def dpo(tokens: Tokens, settings: Mapping[str, Any]) -> tuple[Tensor, Sums]:
    """Eq. 7, -ln sigmoid(beta (ln pi/pi_ref of the chosen one - that of the rejected one)), twice for each pair: the
    sum is divided by the step's trained completions, of which a pair has two.

    Columns: `advantage`, 1 for a chosen completion and -1 for a rejected one; `logprob`, of the reference. `settings`:
    `beta`. Returns the loss [], a part of that sum, and its figures.
    """
    assert tokens.groups is not None
    names, places = torch.unique(tokens.groups, return_inverse=True)
    moved = ((tokens.logp - tokens["logprob"]) * tokens["advantage"] * tokens["mask"]).double()
    margin = settings["beta"] * torch.zeros(len(names), dtype=torch.float64, device=moved.device).index_add(
        0, places, moved
    )
    told = margin.detach()
    figures: Sums = {
        "preferences": len(names),
        "preferred": (told > 0).sum().double(),
        "preference_margin_sum": told.sum(),
    }
    return -2 * logsigmoid(margin).sum().float(), figures
