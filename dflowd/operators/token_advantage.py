"""advantage by a method that knows tokens: how much better each token of a completion went than was to be expected.

Writes `advantage`, and by a critic's values `return`, each one float32 a token, NaN throughout a completion without a
score, 0 where a token is not the model's own: to a critic those lie between two of its states. The reward is the last
own token's; with `kl` each of them pays for its distance from a reference (InstructGPT, arXiv 2203.02155).
"""

from __future__ import annotations

import numpy as np

from dflow_protocols.pipeline.weighing import reward_weights
from dflowd.algorithms.registry import TOKEN_ADVANTAGES, TURN_ADVANTAGES
from dflowd.data import columns
from dflowd.shards.layout import Column

from .advantage import bounded, left_out, paid_by_token, trained_groups, weighed, whitening_sums
from .partition import Output, Partition


def token_advantage(partition: Partition) -> list[Output]:
    config, said = partition.stage.config, partition.read("rollout")
    own, lengths = columns.own_tokens(said), columns.own_lengths(said)
    is_own = np.ones(int(lengths.sum()), np.bool_) if own is None else np.concatenate(own)
    earned = np.zeros(int(lengths.sum()))
    rewards = np.where(left_out(partition), np.nan, weighed(partition)[0] if reward_weights(partition.stage) else 0.0)
    earned[np.cumsum(lengths)[lengths > 0] - 1] = rewards[lengths > 0]
    paid, metrics = paid_by_token(partition)
    if len(paid):
        earned -= paid
    writes, values = partition.stage.writes, np.zeros(len(earned))
    if "return" in writes:
        values = columns.values(partition.read("value")["value"])[is_own].astype(np.float64)
    advantages = TOKEN_ADVANTAGES[config["method"]](earned, values, lengths, config)
    metrics |= bounded(advantages, partition.stage.id)
    if config.get("whiten"):
        metrics |= whitening_sums(advantages.astype(np.float32), np.ones(len(advantages)))
    trained = trained_groups(lengths, ~np.isnan(rewards).reshape(partition.end - partition.first, -1))

    def written(name: str, numbers: columns.Array) -> dict[str, Column]:
        """By token of the completions, whoever said it."""
        whole = np.zeros(len(is_own), np.float32)
        whole[is_own] = numbers
        return {name: columns.pack(whole, columns.lengths(said["tokens"]))}

    came = [Output("return", written("return", advantages + values))] if "return" in writes else []
    return [Output("advantage", written("advantage", advantages), metrics, trained), *came]


def turn_advantage(partition: Partition) -> list[Output]:
    """By what an environment gave for each turn: of a turn's tokens all alike, 0 where a token is not the model's own,
    NaN throughout a conversation without a score."""
    config, said = partition.stage.config, partition.read("rollout")
    earned = [row.astype(np.float64) for row in columns.rows(said["turn_reward"])]
    turns, lengths = columns.rows(said["turn"]), columns.own_lengths(said)
    width = len(earned) // (partition.end - partition.first)
    is_in = ~left_out(partition) & np.array([not np.isnan(row).any() for row in earned], np.bool_)
    found = [np.full(len(row), np.nan, np.float32) for row in turns]
    for first in range(0, len(earned), width):
        there = [at for at in range(first, first + width) if is_in[at]]
        advantages = TURN_ADVANTAGES[config["method"]]([earned[at] for at in there], config)
        for at, each in zip(there, advantages, strict=True):
            found[at] = np.append(each, 0.0)[turns[at]].astype(np.float32)  # what was not sampled is of turn -1
    written = np.concatenate([np.zeros(0, np.float32), *found])
    metrics = bounded(written.astype(np.float64), partition.stage.id)
    if config.get("whiten"):
        metrics |= whitening_sums(written, np.concatenate([row >= 0 for row in turns]))
    trained = trained_groups(lengths, is_in.reshape(-1, width))
    return [
        Output("advantage", {"advantage": columns.pack(written, columns.lengths(said["tokens"]))}, metrics, trained)
    ]
