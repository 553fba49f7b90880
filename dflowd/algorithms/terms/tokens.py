"""What a loss is given, and what it gives: the trained tokens of a micro-batch with their columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dflow_protocols.pipeline.grammar.columns import COLUMNS

Sums = dict[str, float | Tensor]
"""Figures by the names of dflow_protocols.metrics: sums, or extremes where a name ends in `_max` or `_min`. A tensor is
[] float64, on the tokens' device: nobody waits for it before the next pass begins."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Completions only, packed. All tensors are [tokens], float32 unless said, on one device."""

    predicted: Tensor  # by the model that is trained, for the gradient to go through: see `logp` and `values`
    lengths: Tensor  # trained tokens of the completion that each one belongs to
    given: Mapping[str, Tensor] = field(default_factory=dict)  # columns, by the names of COLUMNS or of one's own
    samples: Tensor | None = None  # int64: which completion each one belongs to; all of its tokens are here
    entropy: Tensor | None = None  # nats, of the distribution that each one is drawn from; a gradient if asked for
    groups: Tensor | None = None  # int64: which group each one belongs to; a loss of pairs has all of its tokens here

    @property
    def logp(self) -> Tensor:
        """Log-probability of each one by the policy that is trained."""
        return self.predicted

    @property
    def values(self) -> Tensor:
        """What the critic that is trained expects to come, before each one was said."""
        return self.predicted

    @property
    def weight(self) -> Tensor:
        """What each token's share of a loss is multiplied by: 0 where it is not trained on."""
        return self["mask"] * self["weight"]

    def find(self, column: str) -> Tensor | None:
        """The column as it was given, else its default; None where it has none."""
        if column in self.given:
            return self.given[column]
        default = COLUMNS[column].default if column in COLUMNS else None
        if isinstance(default, str):
            return self.find(default)
        return None if default is None else torch.full_like(self.lengths, default)

    def __getitem__(self, column: str) -> Tensor:
        """Raises KeyError for a column that nobody gave and that has no default."""
        found = self.find(column)
        if found is None:
            raise KeyError(f"no column `{column}`")
        return found
