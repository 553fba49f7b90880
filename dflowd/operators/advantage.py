"""advantage: compares the completions of a group with each other.

Writes `advantage`: one float32 a completion. Its groups say what is trained on: (tokens, completions) of each, (0, 0)
for one that was dropped. Several rewards are added up by their weights first.
"""

from __future__ import annotations

import numpy as np

from dflow_protocols.pipeline.weighing import reward_stages, reward_weights
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
    lengths = columns.lengths(partition.read("rollout")["tokens"]).reshape(rewards.shape)
    flat = flat_groups(rewards, sizes)
    kept = ~flat if config["drop_flat_groups"] else np.ones(count, np.bool_)
    tokens = np.where(kept, lengths.sum(1), 0).tolist()
    groups = tuple((many, rewards.shape[1] if many else 0) for many in tokens)
    values = ADVANTAGES[config["method"]](rewards, sizes, config)
    metrics: dict[str, float] = {"groups": count, "groups_zero_std": int(flat.sum())}
    if len(reward_stages(partition.pipeline)) > 1:  # else the one reward's stage tells it
        metrics |= reward_metrics(total)
    if values.size:
        metrics |= {"advantage_max": float(values.max()), "advantage_min": float(values.min())}
        if np.abs(values).max() > LARGEST:
            what = f"an advantage of {values.flat[np.abs(values).argmax()]:g}, whose sums are more than float32 holds"
            raise UserError(f"{what}; give smaller rewards, or `scale: std`", partition.stage.id)
    return Output("advantage", {"advantage": columns.pack(values.astype(np.float32).reshape(-1))}, metrics, groups)


def weighed(partition: Partition) -> tuple[columns.Array, columns.Array]:
    """What the stage's rewards come to, and the sum of their absolute values, against which rounding is small; both
    [completions] float64. Raises UserError where float32 cannot hold it."""
    weights = reward_weights(partition.stage)
    parts = [
        weight * columns.values(partition.inputs[read]["reward"]).astype(np.float64) for read, weight in weights.items()
    ]
    total, size = sum(parts[1:], parts[0]), sum(map(np.abs, parts[1:]), np.abs(parts[0]))
    if size.max(initial=0.0) > np.finfo(np.float32).max:
        named = " and ".join(f"`{read.partition('.')[0]}`" for read in weights)
        what = f"the rewards of {named}, weighed, come to {total[size.argmax()]:g}: more than float32 holds"
        raise UserError(what, partition.stage.id)
    return total, size
