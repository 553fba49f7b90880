"""advantage: compares the completions of a group with each other.

Writes `advantage`: one float32 a completion, NaN for one that has no score: it is neither compared nor trained on. Its
groups say what is: (tokens, completions) of each, (0, 0) for one that was dropped. Several rewards are added up by
their weights first; with `kl` each completion pays for the distance of its tokens from a reference. A group is flat by
what it earned: what it pays is never alike.

A function of the user's own asks by name for what it needs, and for the stage's `args`; it is called once a group:

    def advantage(rewards: list[float | None], completions: list[str], answer: str, **args) -> list[float | None]

It gives a number for each completion, None for one that is not trained on; nor is one that has no score, whose reward
is None. It may ask for what a filter's function may (filter.py). Workers run it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dflow_protocols.metrics import WHITENED_COUNT, WHITENED_SQ_SUM, WHITENED_SUM
from dflow_protocols.pipeline.grammar.signatures import method_of
from dflow_protocols.pipeline.weighing import reward_stages, reward_weights
from dflow_protocols.work import Groups
from dflowd.algorithms.advantages.flat import flat_groups
from dflowd.algorithms.registry import ADVANTAGES
from dflowd.algorithms.terms.kl import ESTIMATORS
from dflowd.data import columns
from dflowd.jobs.failures import UserError
from dflowd.workers.outcome import Due

from .calls import by_groups
from .partition import Output, Partition, read_rollout
from .reward import answers_of, reward_metrics

LARGEST = 1e30  # of an advantage: a step's tokens times it have to fit into float32

Numbers = npt.NDArray[np.float64]


def advantage(partition: Partition) -> Output:
    config = partition.stage.config
    count = partition.end - partition.first
    total, size = weighed(partition)
    out = left_out(partition).reshape(count, -1)
    method = method_of(partition.stage.operator, config)
    hidden = out if method is not None and method.selects else np.zeros_like(out)
    flat = _flat(np.where(hidden, np.nan, total.reshape(out.shape)), size.reshape(out.shape).max(1))
    spoken = columns.own_lengths(partition.read("rollout"))
    paid, metrics = paid_by_token(partition)
    if len(reward_stages(partition.pipeline)) > 1:  # else the one reward's stage tells it
        metrics |= reward_metrics(total)
    if len(paid):
        whose = np.repeat(np.arange(len(total)), spoken)
        total = total - np.bincount(whose, paid, len(total))
        size = size + np.bincount(whose, np.abs(paid), len(total))
    rewards, sizes = total.reshape(out.shape), size.reshape(out.shape).max(1)
    is_own = ":" in config["method"]
    values = _own(partition, rewards) if is_own else _compared(np.where(hidden, np.nan, rewards), sizes, config)
    kept = ~flat if config["drop_flat_groups"] else np.ones(count, np.bool_)
    learnt = np.where(out, np.nan, values)
    trained = trained_groups(spoken, kept[:, None] & ~np.isnan(learnt))
    written = learnt.astype(np.float32).reshape(-1)
    metrics |= {"groups": count, "groups_zero_std": int(flat.sum())}
    if config.get("whiten"):
        metrics |= whitening_sums(written, np.where(kept.repeat(values.shape[1]), spoken, 0))
    metrics |= bounded(values, partition.stage.id)
    return Output("advantage", {"advantage": columns.pack(written)}, metrics, trained)


def _flat(rewards: Numbers, sizes: Numbers) -> npt.NDArray[np.bool_]:
    """Which groups are flat, [groups]; one without a score is not. rewards: [groups, samples]; `sizes`: [groups], as of
    `flat_groups`."""
    flat = np.zeros(len(rewards), np.bool_)
    for groups, samples in _alike(~np.isnan(rewards)):
        flat[groups] = flat_groups(rewards[np.ix_(groups, samples)], sizes[groups])
    return flat


def _compared(rewards: Numbers, sizes: Numbers, config: Mapping[str, Any]) -> Numbers:
    """Advantages by the method, which is one of ours, [groups, samples]. Arguments as of `_flat`."""
    values = np.full(rewards.shape, np.nan)
    for groups, samples in _alike(~np.isnan(rewards)):
        given = rewards[np.ix_(groups, samples)]
        values[np.ix_(groups, samples)] = ADVANTAGES[config["method"]](given, sizes[groups], config)
    return values


def _own(partition: Partition, rewards: Numbers) -> Numbers:
    """By the user's function, [groups, samples], NaN for a completion that is not trained on. `rewards`: as many, NaN
    without a score. Raises UserError, and HostError where this host has another function."""
    groups = answers_of(read_rollout(partition)).groups(rewards, partition.step)
    given = by_groups(partition, str(partition.stage.config["method"]), groups, Due(rewards.shape[1]))
    values = np.array([[np.nan if one is None else one for one in each] for each in given], np.float64)
    return np.where(np.isnan(rewards), np.nan, values)


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


def left_out(partition: Partition) -> npt.NDArray[np.bool_]:
    """Completions that are not trained on, however they are scored, [completions]: that were cut off, if the stage says
    so, and of which a filter has kept none."""
    truncated = columns.values(partition.read("rollout")["truncated"]).astype(np.bool_)
    out = truncated if partition.stage.config.get("mask_truncated") else np.zeros_like(truncated)
    for read in partition.stage.reads:
        if read.endswith(".kept"):
            out = out | (columns.values(partition.inputs[read]["kept"]) == 0)
    return out


def paid_by_token(partition: Partition) -> tuple[Numbers, dict[str, float]]:
    """What each token that the model said pays for its distance from a reference, with figures of that; [own tokens],
    completions one behind the other (InstructGPT, arXiv 2203.02155). Nothing where the stage's `kl` is 0."""
    config = partition.stage.config
    if not config.get("kl"):
        return np.zeros(0), {}
    said = partition.read("rollout")
    own = columns.own_tokens(said)
    scored = (columns.values(each) for each in (said["logprobs"], partition.read("logprob")["logprob"]))
    mine = slice(None) if own is None else np.concatenate(own)
    pair = (torch.from_numpy(each[mine].astype(np.float64)) for each in scored)
    apart = ESTIMATORS[config.get("kl_kind", "k1")](*pair).numpy()
    return config["kl"] * apart, {"reward_kl_sum": float(apart.sum()), "reward_kl_count": len(apart)}


def trained_groups(lengths: columns.Array, trained: npt.NDArray[np.bool_]) -> Groups:
    """What is trained on of each group, as (tokens, completions). lengths: of each completion the tokens that the model
    said; trained: [groups, samples], whether it has an advantage."""
    tokens = np.where(trained, lengths.reshape(trained.shape), 0).sum(1)
    return tuple(zip(tokens.tolist(), trained.sum(1).tolist(), strict=True))


def whitening_sums(advantages: columns.Array, tokens: columns.Array) -> dict[str, float]:
    """What a step is whitened by, of one partition. advantages: [n] float32 as they are written, NaN for none; tokens:
    [n], how many are trained by each."""
    count = np.where(np.isnan(advantages), 0, tokens).astype(np.float64)
    wide = np.nan_to_num(advantages.astype(np.float64))
    sums = (count.sum(), (count * wide).sum(), (count * wide * wide).sum())
    return dict(zip((WHITENED_COUNT, WHITENED_SUM, WHITENED_SQ_SUM), map(float, sums), strict=True))


def bounded(advantages: npt.NDArray[np.float64], stage: str) -> dict[str, float]:
    """Figures of advantages, [n], but for the NaN among them. Raises UserError where a step's sums of them would not be
    numbers."""
    there = advantages[~np.isnan(advantages)]
    if not there.size:
        return {}
    if np.abs(there).max() > LARGEST:
        what = f"an advantage of {there[np.abs(there).argmax()]:g}, whose sums are more than float32 holds"
        raise UserError(f"{what}; give smaller rewards, or `scale: std`", stage)
    return {"advantage_max": float(there.max()), "advantage_min": float(there.min())}
