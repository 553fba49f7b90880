"""Direct preference optimisation (arXiv 2305.18290), on pairs whose two completions lie in one micro-batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from dflowd.algorithms.terms.tokens import Sums, Tokens


def dpo(tokens: Tokens, settings: Mapping[str, Any]) -> tuple[Tensor, Sums]:
    """Eq. 7, -ln sigmoid(beta (ln pi/pi_ref of the chosen one - that of the rejected one)), and with `nll` that weight
    times the chosen one's cross-entropy, the mean over its tokens (RPO, arXiv 2404.19733, eq. 1). Twice for each pair:
    the sum is divided by the step's trained completions, of which a pair has two.

    Columns: `advantage`, 1 for a chosen completion and -1 for a rejected one; `logprob`, of the reference. `settings`:
    `beta`, `nll`. Returns the loss [], a part of that sum, and its figures.
    """
    assert tokens.groups is not None
    names, places = torch.unique(tokens.groups, return_inverse=True)
    is_chosen, trained = tokens["advantage"] > 0, tokens["mask"]

    def by_pair(each: Tensor) -> Tensor:
        empty = torch.zeros(len(names), dtype=torch.float64, device=each.device)
        return empty.index_add(0, places, (each * trained).double())

    moved = tokens.logp - tokens["logprob"]
    margin = settings["beta"] * by_pair(moved * tokens["advantage"])
    loss = -2 * logsigmoid(margin).sum()
    if settings.get("nll"):
        loss = loss - 2 * settings["nll"] * by_pair(tokens.logp * is_chosen / tokens.lengths).sum()
    told = margin.detach()
    figures: Sums = {
        "preferences": len(names),
        "preferred": (told > 0).sum().double(),
        "preference_margin_sum": told.sum(),
    }
    with torch.no_grad():
        for name, own in (("chosen", is_chosen), ("rejected", ~is_chosen)):
            figures[f"{name}_logprob_sum"] = by_pair(tokens.logp * own).sum()
            figures[f"{name}_reward_sum"] = settings["beta"] * by_pair(moved * own).sum()
    return loss.float(), figures
