"""A reward model's loss by preferences (InstructGPT, arXiv 2203.02155, eq. 1; Bradley and Terry 1952).

The probability that completion w is preferred to l is sigmoid(r_w - r_l), of the rewards that the model gives them. All
pairs of a prompt's completions are asked together, as the paper has it: each completion is in many of them, and a pass
for each pair would fit to it as often.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from dflowd.algorithms.terms.tokens import Sums, Tokens


def bradley_terry(tokens: Tokens, settings: Mapping[str, Any]) -> tuple[Tensor, Sums]:
    """No settings. Columns: `advantage`: of two completions of a group the one that has more is preferred; of such that
    have the same none is.

    A completion's reward is the model's number at its last token. Returns the loss [], of each completion the mean of
    its group's pairs, a part of a sum over the step that is divided by its trained completions; and its figures.
    """
    assert tokens.samples is not None, "completions come with their tokens"
    assert tokens.groups is not None, "groups come with their completions"
    last = torch.ones_like(tokens.samples, dtype=torch.bool)
    last[:-1] = tokens.samples[1:] != tokens.samples[:-1]
    rewards, liked, groups = tokens.values[last], tokens["advantage"][last], tokens.groups[last]
    together = groups[:, None] == groups[None, :]
    better, worse = torch.nonzero(together & (liked[:, None] > liked[None, :]), as_tuple=True)
    apart = rewards[better] - rewards[worse]
    pairs = torch.zeros_like(rewards).index_add_(0, better, torch.ones_like(apart))
    of_group = together.to(rewards.dtype) @ torch.stack([pairs, torch.ones_like(pairs)], 1)
    share = of_group[:, 1] / of_group[:, 0].clamp(min=1)  # completions of the group a pair of it
    wide = apart.detach().double()
    figures: Sums = {"pairs": float(len(wide)), "pairs_right": (wide > 0).sum().double(), "pair_margin_sum": wide.sum()}
    return (softplus(-apart) * share[better]).sum(), figures
