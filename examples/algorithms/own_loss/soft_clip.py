"""A soft clip in place of PPO's hard one, after SAPO (arXiv 2511.20347)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def loss(tokens: Any, sharpness: float = 1.0) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum over the tokens of a micro-batch; dflowd divides it by the step's tokens. The second is a figure, told as
    `own_gate` in `dflow metrics`: its mean over the step's tokens."""
    ratio = torch.exp(tokens.logp - tokens["old_logprob"])
    gate = torch.sigmoid(sharpness * (ratio - 1))  # one half where the policy has not moved
    gain = 4 / sharpness * gate * tokens["advantage"]  # its slope there is that of the ratio
    return -(gain * tokens.weight).sum(), {"gate": gate.sum()}
