"""filter: says which groups are trained on. Writes `kept`: one float32 a completion, 1 or 0, alike within a group.

A function of your own asks by name for what it needs, and for the stage's `args`; it is called once a group:

    def keep(rewards: list[float | None], completions: list[str], answer: str, prompt: str, entry: dict, **args) -> bool

A reward of None is that of a completion without a score. It may ask for `step` and `messages`, too, and for `tokens`,
`truncated`, `finished` and `turns`, which are lists by completion. Workers run it, as they do a reward's.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from dflow_protocols import metrics
from dflowd.data import columns
from dflowd.jobs.failures import UserError
from dflowd.workers.float32 import shown
from dflowd.workers.outcome import Due

from .calls import by_groups
from .partition import Output, Partition, read_rollout
from .reward import answers_of, scores_of

Rewards = Sequence[float | None]


def pass_rate(rewards: Rewards, *, low: float, high: float) -> bool:
    """Whether the mean of those that have a score lies in [low, high]; not where none has one. Raises UserError."""
    if not (isinstance(low, numbers.Real) and isinstance(high, numbers.Real) and low <= high):
        raise UserError(
            f"`low` is {shown(low)} and `high` {shown(high)} where two numbers are due, `low` the lower one"
        )
    scored = [reward for reward in rewards if reward is not None]
    return bool(scored) and low <= sum(scored) / len(scored) <= high


OURS: Mapping[str, Callable[..., bool]] = {f"{each.__module__}:{each.__name__}": each for each in (pass_rate,)}
"""They run in the engine, which trusts them to come back. By the names that specs give them."""


def filter_groups(partition: Partition) -> Output:
    count = partition.end - partition.first
    given = columns.values(partition.read("reward")["reward"]).reshape(count, -1)
    kept = _kept(partition, given)
    figures = {metrics.FILTERED_GROUPS: count, metrics.KEPT_GROUPS: int(kept.sum())}
    return Output("kept", {"kept": columns.pack(kept.repeat(given.shape[1]).astype(np.float32))}, figures)


def _kept(partition: Partition, rewards: columns.Array) -> npt.NDArray[np.bool_]:
    """[groups]. `rewards`: [groups, samples]. Raises UserError, and HostError where this host has another function."""
    config, stage = partition.stage.config, partition.stage.id
    name = str(config["function"])
    if name in OURS:
        try:
            return np.array([OURS[name](each, **config["args"]) for each in scores_of(rewards)], np.bool_)
        except (TypeError, UserError) as error:
            raise UserError(f"{name}: {error}", stage) from error
    groups = answers_of(read_rollout(partition)).groups(rewards, partition.step)
    given = by_groups(partition, name, groups, Due())
    for each in given:
        if each not in (0, 1):
            raise UserError(f"{name} gave {shown(each)} where True or False is due", stage)
    return np.array(given, np.bool_)
