"""What a model says of tokens: log-probabilities and entropies, or a critic's values.

The logits of all tokens are never in memory at once.

Chunks of rows become logits one by one under activation checkpointing: their logits are made again in the
backward pass, so at most one chunk's float32 logits live at any time. Any head that autograd knows fits, biased, tied
or scaled. Where everything fits into one chunk nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .attention import Line, Sight
from .packing import MicroBatch
from .policy import Policy

CHUNK_ELEMENTS = 1 << 22  # logits alive at once: 16 MiB of float32

Logits = Callable[[Tensor], Tensor]


def likelihood(
    policy: Policy, batch: MicroBatch, temperature: float, *, entropy_gradient: bool = False
) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy of a micro-batch's trained tokens, both [tokens] float32."""
    targets = torch.from_numpy(batch.targets).to(policy.device)
    hidden = states(policy, batch)
    return token_likelihood(
        hidden, policy.logits, policy.vocabulary, targets, temperature, entropy_gradient=entropy_gradient
    )


def values(critic: Policy, batch: MicroBatch) -> Tensor:
    """What a critic expects to come before each of a micro-batch's trained tokens is said, [tokens] float32."""
    return critic.values(states(critic, batch))


def states(policy: Policy, batch: MicroBatch) -> Tensor:
    """Last hidden states from which each of a micro-batch's trained tokens is said, [tokens, width]."""
    device = policy.device
    policy.require_length(int(batch.positions.max(initial=0)) + 1)
    positions = torch.from_numpy(batch.positions).to(device)
    sight = Line(positions, batch.bounds) if batch.bounds else Sight(positions, _seen(batch.segments, device))
    hidden = policy.hidden(torch.from_numpy(batch.tokens).to(device), sight)
    return hidden.reshape(-1, hidden.shape[-1])[torch.from_numpy(batch.places).to(device)]


def _seen(segments: Any, device: torch.device) -> Tensor:
    """[rows, queries, keys] bool, of segments [rows, length]: what is before in the prompt or the same completion."""
    each = torch.from_numpy(segments).to(device)
    length = each.shape[1]
    before = torch.ones((length, length), dtype=torch.bool, device=device).tril()
    return ((each[:, None, :] == 0) | (each[:, None, :] == each[:, :, None])) & before


def token_likelihood(
    hidden: Tensor,
    logits: Logits,
    vocabulary: int,
    targets: Tensor,
    temperature: float,
    *,
    entropy_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target, and entropy (nats) of the distribution that it is drawn from, through which a
    gradient goes only if asked for, as it costs memory and time.

    hidden: [tokens, width]. `logits`: [rows, width] -> [rows, vocabulary] float32. targets: [tokens] int64. Both
    results: [tokens] float32, of the full vocabulary at `temperature`.
    """
    rows = max(1, CHUNK_ELEMENTS // vocabulary)
    if len(hidden) <= rows:
        return _likelihood(hidden, logits, targets, temperature, entropy_gradient)
    parts = [
        checkpoint(
            _likelihood,
            hidden[at : at + rows],
            logits,
            targets[at : at + rows],
            temperature,
            entropy_gradient,
            use_reentrant=False,
        )
        for at in range(0, len(hidden), rows)
    ]
    return torch.cat([logp for logp, _ in parts]), torch.cat([entropy for _, entropy in parts])


def _likelihood(
    hidden: Tensor, logits: Logits, targets: Tensor, temperature: float, entropy_gradient: bool
) -> tuple[Tensor, Tensor]:
    logp = torch.log_softmax(logits(hidden) / temperature, -1)
    with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
        entropy = -(logp.exp() * logp).sum(-1)
    return logp.gather(-1, targets[:, None])[:, 0], entropy
