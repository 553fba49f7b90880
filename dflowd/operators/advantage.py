"""advantage: compares the completions of a group with each other.

Writes `advantage`: one float32 a completion, NaN for one that has no score: it is neither compared nor trained on. Its
groups say what is: (tokens, completions) of each, (0, 0) for one that was dropped. Several rewards are added up by
their weights first.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from dflow_protocols.metrics import WHITENED_COUNT, WHITENED_SQ_SUM, WHITENED_SUM
from dflow_protocols.pipeline.weighing import reward_stages, reward_weights
from dflow_protocols.work import Groups
from dflowd.algorithms.advantages.flat import flat_groups
from dflowd.algorithms.registry import ADVANTAGES
from dflowd.data import columns
from dflowd.jobs.failures import UserError

from .partition import Output, Partition
from .reward import reward_metrics

LARGEST = 1e30  # of an advantage: a step's tokens times it have to fit into float32


def advantage(partition: Partition) -> Output:
    config = partition.stage.config
    count = partition.end - partition.first
    total, size = weighed(partition)
    rewards, sizes = total.reshape(count, -1), size.reshape(count, -1).max(1)
    scored = ~np.isnan(rewards)
    values, flat = np.full(rewards.shape, np.nan), np.zeros(count, np.bool_)
    for groups, samples in _alike(scored):
        given = rewards[np.ix_(groups, samples)]
        flat[groups] = flat_groups(given, sizes[groups])
        values[np.ix_(groups, samples)] = ADVANTAGES[config["method"]](given, sizes[groups], config)
    kept = ~flat if config["drop_flat_groups"] else np.ones(count, np.bool_)
    spoken = columns.own_lengths(partition.read("rollout"))
    learnt = np.where(left_out(partition).reshape(values.shape), np.nan, values)
    trained = trained_groups(spoken, kept[:, None] & ~np.isnan(learnt))
    written = learnt.astype(np.float32).reshape(-1)
    metrics: dict[str, float] = {"groups": count, "groups_zero_std": int(flat.sum())}
    if config.get("whiten"):
        metrics |= whitening_sums(written, np.where(kept.repeat(values.shape[1]), spoken, 0))
    if len(reward_stages(partition.pipeline)) > 1:  # else the one reward's stage tells it
        metrics |= reward_metrics(total)
    metrics |= bounded(values[scored], partition.stage.id)
    return Output("advantage", {"advantage": columns.pack(written)}, metrics, trained)


def left_out(partition: Partition) -> npt.NDArray[np.bool_]:
    """Completions that are not trained on, however they are scored, [completions]: that were cut off, if the stage says
    so, and of which a filter has kept none."""
    truncated = columns.values(partition.read("rollout")["truncated"]).astype(np.bool_)
    out = truncated if partition.stage.config.get("mask_truncated") else np.zeros_like(truncated)
    for read in partition.stage.reads:
        if read.endswith(".kept"):
            out = out | (columns.values(partition.inputs[read]["kept"]) == 0)
    return out


def whitening_sums(advantages: columns.Array, tokens: columns.Array) -> dict[str, float]:
    """What a step is whitened by, of one partition. advantages: [n] float32 as they are written, NaN for none; tokens:
    [n], how many are trained by each."""
    count = np.where(np.isnan(advantages), 0, tokens).astype(np.float64)
    wide = np.nan_to_num(advantages.astype(np.float64))
    sums = (count.sum(), (count * wide).sum(), (count * wide * wide).sum())
    return dict(zip((WHITENED_COUNT, WHITENED_SUM, WHITENED_SQ_SUM), map(float, sums), strict=True))


def bounded(advantages: npt.NDArray[np.float64], stage: str) -> dict[str, float]:
    """Figures of advantages, [n] without NaN. Raises UserError where a step's sums of them would not be numbers."""
    if not advantages.size:
        return {}
    if np.abs(advantages).max() > LARGEST:
        what = f"an advantage of {advantages[np.abs(advantages).argmax()]:g}, whose sums are more than float32 holds"
        raise UserError(f"{what}; give smaller rewards, or `scale: std`", stage)
    return {"advantage_max": float(advantages.max()), "advantage_min": float(advantages.min())}


def trained_groups(lengths: columns.Array, trained: npt.NDArray[np.bool_]) -> Groups:
    """What is trained on of each group, as (tokens, completions). lengths: of each completion the tokens that the model
    said; trained: [groups, samples], whether it has an advantage."""
    tokens = np.where(trained, lengths.reshape(trained.shape), 0).sum(1)
    return tuple(zip(tokens.tolist(), trained.sum(1).tolist(), strict=True))


def _alike(scored: npt.NDArray[np.bool_]) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """(groups, samples) of groups in which the same samples have a score, if any have: those without a hole at once.
    scored: [groups, samples]."""
    whole = scored.all(1)
    everyone = np.arange(scored.shape[1])
    if whole.any():
        yield np.flatnonzero(whole), everyone
    for group in np.flatnonzero(~whole & scored.any(1)):
        yield np.array([group]), np.flatnonzero(scored[group])


def weighed(partition: Partition) -> tuple[columns.Array, columns.Array]:
    """What the stage's rewards come to, and the sum of their absolute values, against which rounding is small; both
    [completions] float64, NaN and 0 where one of them has no score. Raises UserError where float32 cannot hold it."""
    weights = reward_weights(partition.stage)
    parts = [
        weight * columns.values(partition.inputs[read]["reward"]).astype(np.float64) for read, weight in weights.items()
    ]
    total, size = sum(parts[1:], parts[0]), np.nan_to_num(sum(map(np.abs, parts[1:]), np.abs(parts[0])), posinf=np.inf)
    if size.max(initial=0.0) > np.finfo(np.float32).max:
        named = " and ".join(f"`{read.partition('.')[0]}`" for read in weights)
        what = f"the rewards of {named}, weighed, come to {total[size.argmax()]:g}: more than float32 holds"
        raise UserError(what, partition.stage.id)
    return total, size
