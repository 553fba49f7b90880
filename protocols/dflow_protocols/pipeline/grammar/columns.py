"""Columns that a rollout's tokens may have beside themselves: whoever makes or reads one calls it so.

A column has a number for each token of a completion, or one for each completion, which then holds for all its tokens.
Where nobody gave one, its default stands: what a loss asks for is there, whichever stages a pipeline has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """`default`: a number for every token, or the column whose numbers it then has; None: there is none."""

    about: str
    default: float | str | None = None


COLUMNS: Mapping[str, Column] = {
    "mask": Column("1 where a token is trained on, else 0", 1.0),
    "advantage": Column("how much better it went than was to be expected"),
    "logprob": Column("log-probability by another model, such as a frozen reference"),
    "sampled_logprob": Column("log-probability as the sampler had it"),
    "old_logprob": Column("log-probability by the version that sampled, as training computes it", "sampled_logprob"),
    "weight": Column("what a token's share of the loss is multiplied by", 1.0),
    "value": Column("what a critic expects to come"),
    "return": Column("what came, from this token on"),
    "picked": Column("1 where a loss that picks some of a group's tokens has picked this one", 0.0),
    "version_gap": Column("how many steps before its own the version was made that sampled it", 0.0),
}
