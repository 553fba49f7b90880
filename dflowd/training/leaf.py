"""One leaf's gradient: a float32 accumulation over micro-batches that follow from the leaf's lengths alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dflowd.algorithms.losses.tokens import Sums, Tokens
from dflowd.algorithms.registry import LOSSES
from dflowd.models.likelihood import likelihood
from dflowd.models.packing import MicroBatch, micro_batches
from dflowd.models.policy import Policy


@dataclass(slots=True)
class LeafData:
    """What one leaf trains on. Samples of one prompt are neighbours."""

    prompts: list[Any] = field(default_factory=list)  # int32 arrays
    owners: list[int] = field(default_factory=list)  # each sample's prompt
    completions: list[Any] = field(default_factory=list)  # int32 arrays
    columns: dict[str, list[Any]] = field(default_factory=dict)  # of each sample a float32 array as long as it, or one

    def give(self, column: str, rows: Iterable[Any]) -> None:
        self.columns.setdefault(column, []).extend(rows)


@dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised: a loss of LOSSES with its settings."""

    loss: str
    settings: Mapping[str, Any]
    divisor: str  # what the step's sum is divided by
    micro_batch_tokens: int
    temperature: float = 1.0
    most_tokens: int = 1  # of a completion


def add_gradient(policy: Policy, data: LeafData, objective: Objective, progress: Callable[[], None]) -> Sums:
    """Add the leaf's gradient of the summed loss to the policy's; returns the metrics' sums."""
    sums: Sums = {"trained_samples": float(len(data.completions))}
    prompts, owners, said = data.prompts, data.owners, data.completions
    for batch in micro_batches(prompts, owners, said, objective.micro_batch_tokens, policy.in_line):
        if len(batch.targets):
            _add_batch(policy, data, objective, batch, sums)
        progress()
    return sums


def _add_batch(policy: Policy, data: LeafData, objective: Objective, batch: MicroBatch, sums: Sums) -> None:
    logp, entropy = likelihood(policy, batch, objective.temperature)
    loss, told = LOSSES[objective.loss](_tokens(logp, data, batch), objective.settings)
    ended = int((batch.offsets == 0).sum())  # every completion starts once
    counts = {"tokens": len(logp), "samples": ended, "constant": ended * objective.most_tokens}
    _count(sums, {"trained_tokens": len(logp), "entropy_sum": float(entropy.double().sum())})
    _count(sums, {"loss_sum": float(loss.detach()), "loss_count": counts[objective.divisor]} | told)
    loss.backward()  # type: ignore[no-untyped-call]


def _tokens(logp: Tensor, data: LeafData, batch: MicroBatch) -> Tokens:
    """The micro-batch's trained tokens in its order, with whatever columns the leaf has."""
    lengths = np.array([len(said) for said in data.completions], np.int64)
    places = (np.cumsum(lengths) - lengths)[batch.samples] + batch.offsets  # in all completions one behind the other

    def column(rows: list[Any]) -> Tensor:
        is_each = np.ndim(rows[0]) == 0  # one number a completion
        values = np.array(rows, np.float32)[batch.samples] if is_each else np.concatenate(rows)[places]
        return torch.from_numpy(values.astype(np.float32, copy=False)).to(logp.device)

    given = {name: column(rows) for name, rows in data.columns.items()}
    return Tokens(logp, torch.from_numpy(lengths[batch.samples].astype(np.float32)).to(logp.device), given)


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
