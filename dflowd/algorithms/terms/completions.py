"""What a completion's trained tokens have in common, told beside each of them. All of a completion's tokens are in one
micro-batch, so it is the same however a step is cut."""

from __future__ import annotations

import torch
from torch import Tensor

from .tokens import Tokens


def trained_tokens(tokens: Tokens) -> Tensor:
    """Of each token how many its completion trains on, [tokens] float32; at least 1."""
    return _sums(torch.ones_like(tokens.lengths), tokens).clamp(min=1).float()


def mean_of_completion(values: Tensor, tokens: Tokens) -> Tensor:
    """Of each token the mean of `values`, [tokens] float32, over its completion's trained ones, [tokens] float32.
    Gradients go through it."""
    return (_sums(values, tokens) / trained_tokens(tokens)).float()


def _sums(values: Tensor, tokens: Tokens) -> Tensor:
    """Of each token the sum over its completion's trained ones, [tokens] float64."""
    assert tokens.samples is not None
    names, places = torch.unique(tokens.samples, return_inverse=True)
    sums = torch.zeros(len(names), dtype=torch.float64, device=values.device)
    return sums.index_add(0, places, (values * tokens["mask"]).double())[places]
