"""advantage: compares the completions of a group with each other.

Writes `advantage`: one float32 a completion. Its groups say what is trained on: (tokens, completions) of each, (0, 0)
for one that was dropped.
"""

from __future__ import annotations

import numpy as np

from dflowd.algorithms.grpo import flat_groups, group_advantage
from dflowd.data import columns

from .partition import Output, Partition


def advantage(partition: Partition) -> Output:
    config = partition.stage.config
    count = partition.end - partition.first
    rewards = columns.values(partition.read("reward")["reward"]).reshape(count, -1)
    lengths = columns.lengths(partition.read("rollout")["tokens"]).reshape(rewards.shape)
    flat = flat_groups(rewards)
    kept = ~flat if config["drop_flat_groups"] else np.ones(count, np.bool_)
    tokens = np.where(kept, lengths.sum(1), 0).tolist()
    groups = tuple((total, rewards.shape[1] if total else 0) for total in tokens)
    values = group_advantage(rewards, config["scale"])
    metrics: dict[str, float] = {"groups": count, "groups_zero_std": int(flat.sum())}
    if values.size:
        metrics |= {"advantage_max": float(values.max()), "advantage_min": float(values.min())}
    return Output("advantage", {"advantage": columns.pack(values.reshape(-1))}, metrics, groups)
