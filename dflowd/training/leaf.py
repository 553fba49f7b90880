"""One leaf's gradient: a float32 accumulation over micro-batches that follow from the leaf's lengths alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dflowd.algorithms.kl import k3
from dflowd.algorithms.losses.cross_entropy import cross_entropy
from dflowd.algorithms.losses.grpo import grpo_loss
from dflowd.models.likelihood import likelihood
from dflowd.models.packing import MicroBatch, assemble, pack
from dflowd.models.policy import Policy


@dataclass(slots=True)
class LeafData:
    """What one leaf trains on. Samples of one prompt are neighbours."""

    prompts: list[Any] = field(default_factory=list)  # int32 arrays
    owners: list[int] = field(default_factory=list)  # each sample's prompt
    completions: list[Any] = field(default_factory=list)  # int32 arrays
    logprobs: list[Any] = field(default_factory=list)  # float32 arrays; empty for cross-entropy
    references: list[Any] = field(default_factory=list)  # float32 arrays; empty without a reference
    advantages: list[float] = field(default_factory=list)  # a sample's; empty for cross-entropy


@dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised. `kind`: `rl` or `cross_entropy`, which reads nothing but `micro_batch_tokens`."""

    kind: str
    micro_batch_tokens: int
    temperature: float = 1.0
    clip: tuple[float, float] = (0.2, 0.28)
    mean: str = "token"
    beta: float = 0.0


Sums = dict[str, float]


def add_gradient(policy: Policy, data: LeafData, objective: Objective, progress: Callable[[], None]) -> Sums:
    """Add the leaf's gradient of the summed loss to the policy's; returns the metrics' sums."""
    sums: Sums = {"trained_samples": float(len(data.completions))}
    batches = pack(
        [len(prompt) for prompt in data.prompts],
        data.owners,
        [len(said) for said in data.completions],
        objective.micro_batch_tokens,
    )
    for rows in batches:
        batch = assemble(rows, data.prompts, data.completions)
        if len(batch.targets):
            _add_batch(policy, data, objective, batch, sums)
        progress()
    return sums


def _add_batch(policy: Policy, data: LeafData, objective: Objective, batch: MicroBatch, sums: Sums) -> None:
    logp, entropy = likelihood(policy, batch, objective.temperature)
    _count(sums, {"trained_tokens": len(logp), "entropy_sum": _sum(entropy)})
    if objective.kind == "cross_entropy":
        loss = cross_entropy(logp)
        _count(sums, {"loss_sum": float(loss.detach()), "loss_count": len(logp)})
    else:
        loss = _policy_loss(policy, data, objective, batch, logp, sums)
    loss.backward()  # type: ignore[no-untyped-call]


def _policy_loss(
    policy: Policy, data: LeafData, objective: Objective, batch: MicroBatch, logp: Tensor, sums: Sums
) -> Tensor:
    device = policy.device

    def tokenwise(rows: list[Any]) -> Tensor:
        return torch.tensor(
            [rows[sample][offset] for sample, offset in zip(batch.samples, batch.offsets, strict=True)],
            dtype=torch.float32,
            device=device,
        )

    lengths = np.array([len(said) for said in data.completions], np.float32)
    advantages = np.array(data.advantages, np.float32)
    weight = np.ones(len(batch.samples), np.float32)
    if objective.mean == "sequence":
        weight /= lengths[batch.samples]
    reference = tokenwise(data.references) if data.references else None
    loss, gain = grpo_loss(
        logp,
        tokenwise(data.logprobs),
        reference,
        torch.from_numpy(advantages[batch.samples]).to(device),
        torch.from_numpy(weight).to(device),
        clip=objective.clip,
        beta=objective.beta,
    )
    ratio = gain.ratio.detach()
    ended = int((batch.offsets == 0).sum())  # every completion starts once
    _count(
        sums,
        {
            "loss_sum": float(loss.detach()),
            "loss_count": len(logp) if objective.mean == "token" else ended,
            "ratio_sum": _sum(ratio),
            "ratio_count": len(ratio),
            "ratio_max": float(ratio.max()),
            "ratio_min": float(ratio.min()),
            "clipped_low": float(gain.cut_low.sum()),
            "clipped_high": float(gain.cut_high.sum()),
        },
    )
    if reference is not None:
        _count(sums, {"kl_sum": _sum(k3(logp.detach(), reference))})
    return loss


def _sum(values: Tensor) -> float:
    return float(values.double().sum())


def _count(sums: Sums, more: Mapping[str, float]) -> None:
    for name, value in more.items():
        known = sums.get(name)
        if known is None:
            sums[name] = float(value)
        elif name.endswith("_max"):
            sums[name] = max(known, value)
        elif name.endswith("_min"):
            sums[name] = min(known, value)
        else:
            sums[name] = known + value
