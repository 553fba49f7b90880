"""The column `picked`: tokens of a group that a loss treats otherwise, found before a leaf is cut into pieces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Any

import numpy as np

from dflowd.algorithms.terms.covariance import Numbers, Picked, drawn, largest
from dflowd.jobs.counter_random import Words, digest, uniforms

Rows = list[Any]

PICKS: Mapping[str, Callable[[Numbers, Numbers, Mapping[str, Any], Numbers], Picked]] = {
    "clip_cov": lambda logp, advantages, settings, draws: drawn(
        logp, advantages, settings["share"], tuple(settings["bounds"]), draws
    ),
    "kl_cov": lambda logp, advantages, settings, draws: largest(logp, advantages, settings["share"], draws),
}
"""By the loss: (log-probabilities as sampled [tokens], advantages [tokens], the loss's settings, draws [1 + tokens]) ->
which tokens [tokens], of the trained ones of a group"""


def pick(
    loss: str, settings: Mapping[str, Any], owners: list[int], completions: Rows, columns: Mapping[str, Rows]
) -> Rows | None:
    """The column, a row of float32 for each completion; None for a loss that picks none. `owners`: each completion's
    group; `columns`: of each completion a row as long as it, or one number."""
    if loss not in PICKS:
        return None
    rows: Rows = []
    for _, group in groupby(range(len(owners)), lambda at: owners[at]):
        rows += _of_group(loss, settings, [*group], completions, columns)
    return rows


def _of_group(
    loss: str, settings: Mapping[str, Any], group: list[int], completions: Rows, columns: Mapping[str, Rows]
) -> Rows:
    lengths = [len(completions[at]) for at in group]

    def joined(name: str) -> Numbers:
        each = (np.broadcast_to(columns[name][at], length) for at, length in zip(group, lengths, strict=True))
        return np.concatenate([np.zeros(0), *each])

    trained = joined("mask") > 0 if "mask" in columns else np.ones(sum(lengths), np.bool_)
    logp, advantages = joined("sampled_logprob")[trained], joined("advantage")[trained]
    key = digest(loss, *(np.asarray(completions[at], np.int32).tobytes() for at in group))
    picked = np.zeros(sum(lengths), np.float32)
    if len(logp):
        picked[trained] = PICKS[loss](logp, advantages, settings, _draws(key, 1 + len(logp)))
    return np.split(picked, np.cumsum(lengths)[:-1])


def _draws(key: bytes, count: int) -> Numbers:
    zero: Words = np.zeros((), np.uint64)
    return uniforms(key, zero, zero, np.arange(count, dtype=np.uint64))
