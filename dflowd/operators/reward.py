"""reward: scores each completion by a function. Writes `reward`: one float32 a completion.

A function of your own:

    def reward(completion: str, answer: str, *, prompt: str, entry: dict, **args) -> float

`prompt` is the entry's question, `entry` all that the data says of it, `args` the stage's `args`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dflowd.data import columns
from dflowd.data.order import DataSet
from dflowd.data.sources import Entry
from dflowd.engines.contract import UserError

from .partition import Output, Partition, read_rollout
from .user_code import call_user, load_function

REASONING_GYM = "dflowd.operators.reward:reasoning_gym"

Score = Callable[[str, Entry], float]
"""(completion, entry) -> reward"""


def exact_match(completion: str, answer: str, *, prompt: str, entry: Entry) -> float:
    """1 if the completion is the answer, case and surrounding space aside, else 0."""
    return float(completion.strip().casefold() == answer.strip().casefold())


def reasoning_gym(completion: str, answer: str, *, prompt: str, entry: Entry, data: DataSet) -> float:
    """reasoning-gym's own verifier for the task, in [0, 1]. Some give parts of the point for parts of the answer."""
    return data.source.score(completion, entry)


def scorer(partition: Partition, data: DataSet) -> Score:
    """The stage's function, ready to be called. Raises UserError."""
    config = partition.stage.config
    name = config["function"]
    function = load_function(name, partition.base)
    extra: dict[str, Any] = dict(config["args"])
    if name == REASONING_GYM:
        extra["data"] = data

    def score(completion: str, entry: Entry) -> float:
        said = call_user(
            partition.stage.id,
            function,
            completion,
            entry["answer"],
            prompt=entry["question"],
            entry=entry,
            **extra,
        )
        if isinstance(said, bool | int | float | np.floating) and math.isfinite(said):
            return float(said)
        raise UserError(f"{name} gave {said!r} where a finite number is due", partition.stage.id)

    return score


def reward(partition: Partition) -> Output:
    rollout = read_rollout(partition)
    maker = partition.pipeline.stage(partition.source("rollout").partition(".")[0])
    score = scorer(partition, partition.data(maker.config["data"]))
    rewards = np.zeros(len(rollout.completions), np.float32)
    for index, completion in enumerate(rollout.completions):
        rewards[index] = score(completion, rollout.entries[index // rollout.width])
        partition.progress()
    return Output("reward", {"reward": columns.pack(rewards)}, reward_metrics(rewards))


def reward_metrics(rewards: columns.Array) -> dict[str, float]:
    wide = rewards.astype(np.float64)
    sums = {"rewarded": len(wide), "reward_sum": wide.sum(), "reward_sq_sum": np.square(wide).sum()}
    return sums | ({"reward_max": wide.max(), "reward_min": wide.min()} if len(wide) else {})
