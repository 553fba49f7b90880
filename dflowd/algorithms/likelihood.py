"""Log-probabilities and entropies without the logits of all tokens in memory at once.

Chunks of rows go through the head one by one under activation checkpointing: their logits are made again in the
backward pass, so at most one chunk's float32 logits live at any time. Any head that autograd knows fits, biased or
tied. Where everything fits into one chunk nothing is computed twice.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CHUNK_ELEMENTS = 1 << 22  # logits alive at once: 16 MiB of float32


def token_likelihood(hidden: Tensor, head: nn.Module, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probability of each target, and entropy (nats, no gradient) of the distribution that it is drawn from.

    hidden: [tokens, width]. targets: [tokens] int64. Both results: [tokens] float32, of the full vocabulary at
    `temperature`.
    """
    vocabulary = int(head.weight.shape[0])  # type: ignore[index]
    rows = max(1, CHUNK_ELEMENTS // vocabulary)
    if len(hidden) <= rows:
        return _likelihood(hidden, head, targets, temperature)
    parts = [
        checkpoint(_likelihood, hidden[at : at + rows], head, targets[at : at + rows], temperature, use_reentrant=False)
        for at in range(0, len(hidden), rows)
    ]
    return torch.cat([logp for logp, _ in parts]), torch.cat([entropy for _, entropy in parts])


def _likelihood(hidden: Tensor, head: nn.Module, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logp = torch.log_softmax(head(hidden).float() / temperature, -1)
    with torch.no_grad():
        entropy = -(logp.exp() * logp).sum(-1)
    return logp.gather(-1, targets[:, None])[:, 0], entropy
