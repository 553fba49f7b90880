"""One leaf's gradient: micro-batches that follow from the leaf's lengths alone, each a backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dflowd.algorithms.registry import LOSSES, Loss
from dflowd.algorithms.terms.correction import correct
from dflowd.algorithms.terms.tokens import Sums, Tokens
from dflowd.models.likelihood import likelihood, values
from dflowd.models.packing import MicroBatch, micro_batches
from dflowd.models.policy import Policy

from .accumulate import Tree
from .objective.picking import pick


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
    """What is minimised: a loss of LOSSES, or one of the user's own, with its settings."""

    loss: str
    settings: Mapping[str, Any]
    divisor: str  # what the step's sum is divided by
    micro_batch_tokens: int
    temperature: float = 1.0
    most_tokens: int = 1  # of a completion
    correction: Mapping[str, Any] = field(default_factory=dict)  # of a sampler that computes otherwise; empty: none
    own: Loss | None = None
    is_of_pairs: bool = False  # whether the completions of a group have to be in one micro-batch


def add_gradient(
    policy: Policy,
    data: LeafData,
    objective: Objective,
    progress: Callable[[], None],
    tree: Tree[Any] | None = None,
) -> dict[str, float]:
    """Compute the gradient of the leaf's summed loss; returns the metrics' sums. `tree`: what its micro-batches are
    summed by; without one they are added, one behind the other, to whatever the policy's passes add to."""
    sums: Sums = {"trained_samples": float(len(data.completions))}
    picked = pick(objective.loss, objective.settings, data.owners, data.completions, data.columns)
    if picked is not None:
        data.columns["picked"] = picked
    columns = _Columns(data, policy.device)
    prompts, owners, said = data.prompts, data.owners, data.completions
    budget, together = objective.micro_batch_tokens, objective.is_of_pairs
    for packed in micro_batches(prompts, owners, said, budget, policy.in_line, together):
        batch = columns.trained(packed)
        if not len(batch.targets):
            if tree is not None:
                tree.push(None)
        elif tree is None:
            _add_batch(policy, columns, objective, batch, sums)
        else:
            vector = tree.begin()
            policy.parameters.begin_gradient(tree.memory.values(vector))
            _add_batch(policy, columns, objective, batch, sums)
            policy.parameters.end_gradient()
            tree.end(vector)
        progress()
    return {name: float(value) for name, value in sums.items()}


def _add_batch(policy: Policy, columns: _Columns, objective: Objective, batch: MicroBatch, sums: Sums) -> None:
    own: Sums = {"trained_tokens": len(batch.targets)}
    if policy.has_values:
        tokens = columns.tokens(values(policy, batch), batch)
    else:
        wants_entropy = bool(objective.settings.get("entropy"))
        logp, entropy = likelihood(policy, batch, objective.temperature, entropy_gradient=wants_entropy)
        tokens, apart = replace(columns.tokens(logp, batch), entropy=entropy), Sums()
        if "sampled_logprob" in tokens.given:
            tokens, apart = correct(tokens, objective.correction)
        own |= {"entropy_sum": entropy.detach().double().sum(), **apart}
        if "version_gap" in tokens.given:
            own |= {"version_gap_sum": tokens["version_gap"].double().sum(), "version_gap_count": len(batch.targets)}
    loss, told = (objective.own or LOSSES[objective.loss])(tokens, objective.settings)
    ended = len(np.unique(batch.samples))  # a micro-batch has whole completions
    counts = {"tokens": len(batch.targets), "samples": ended, "constant": ended * objective.most_tokens}
    of_whom = "value_" if policy.has_values else ""  # a step may train a policy and its critic
    own |= {f"{of_whom}loss_sum": loss.detach().double(), f"{of_whom}loss_count": counts[objective.divisor]}
    _count(sums, own | told)
    loss.backward()  # type: ignore[no-untyped-call]


class _Columns:
    """A leaf's columns on the device, one value a token or one a completion, completions one behind the other."""

    def __init__(self, data: LeafData, device: torch.device) -> None:
        lengths = np.array([len(said) for said in data.completions], np.int64)
        first = np.cumsum(lengths) - lengths
        self._first = first  # token of each completion
        self._mask = np.concatenate(data.columns["mask"]).astype(np.bool_) if "mask" in data.columns else None
        self._owners = torch.tensor(data.owners, dtype=torch.int64, device=device)
        self._starts = torch.from_numpy(first).to(device)
        own = data.columns.get("mask")
        counts = lengths if own is None else np.array([np.count_nonzero(row) for row in own])
        self._lengths = torch.from_numpy(counts.astype(np.float32)).to(device)
        self._by_token: dict[str, Tensor] = {}
        self._by_sample: dict[str, Tensor] = {}
        for name, rows in data.columns.items():
            is_each = np.ndim(rows[0]) == 0
            values = np.array(rows, np.float32) if is_each else np.concatenate(rows)
            found = torch.from_numpy(values.astype(np.float32, copy=False)).to(device)
            (self._by_sample if is_each else self._by_token)[name] = found

    def trained(self, batch: MicroBatch) -> MicroBatch:
        """Without the tokens that the column `mask` leaves out: they are read, and nobody asks how likely they are."""
        if self._mask is None:
            return batch
        kept = self._mask[self._first[batch.samples] + batch.offsets]
        trained = {name: getattr(batch, name)[kept] for name in ("places", "targets", "samples", "offsets")}
        return replace(batch, **trained)

    def tokens(self, predicted: Tensor, batch: MicroBatch) -> Tokens:
        """The micro-batch's trained tokens in its order, with whatever columns the leaf has."""
        samples = torch.from_numpy(batch.samples).to(predicted.device)
        places = self._starts[samples] + torch.from_numpy(batch.offsets).to(predicted.device)
        given = {name: values[places] for name, values in self._by_token.items()}
        given |= {name: values[samples] for name, values in self._by_sample.items()}
        return Tokens(predicted, self._lengths[samples], given, samples, groups=self._owners[samples])


def _count(sums: Sums, more: Mapping[str, float | Tensor]) -> None:
    for name, value in more.items():
        known = sums.get(name)
        if known is None:
            sums[name] = value
        elif name.endswith(("_max", "_min")):
            pair = torch.stack([torch.as_tensor(known), torch.as_tensor(value)])
            sums[name] = pair.amax() if name.endswith("_max") else pair.amin()
        else:
            sums[name] = known + value
