"""filter: says which groups are trained on. Writes `kept`: one float32 a completion, 1 or 0, alike within a group.

A function of your own asks by name for what it needs, and for the stage's `args`; it is called once a group:

    def keep(rewards: list[float | None], completions: list[str], answer: str, prompt: str, entry: dict, **args) -> bool

A reward of None is that of a completion without a score. It may ask for `step` and `messages`, too, and for `tokens`,
`truncated`, `finished` and `turns`, which are lists by completion. Workers run it, as they do a reward's.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dflow_protocols import metrics
from dflow_protocols.pipeline.grammar.scoring import BESIDE, EACH, asked_of_group
from dflowd.data import columns
from dflowd.jobs.failures import UserError
from dflowd.workers.float32 import shown
from dflowd.workers.outcome import Arguments, Due, Outcome
from dflowd.workers.pool import Pool, Terms

from .calls import by_workers
from .partition import Output, Partition, read_rollout
from .reward import answers_of

SHARED = ("answer", "prompt", "entry", "messages", "step")  # by all completions of a group

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
    kept = _kept(partition, [[None if np.isnan(one) else float(one) for one in row] for row in given])
    figures = {metrics.FILTERED_GROUPS: count, metrics.KEPT_GROUPS: int(kept.sum())}
    return Output("kept", {"kept": columns.pack(kept.repeat(given.shape[1]).astype(np.float32))}, figures)


def _kept(partition: Partition, rewards: Sequence[Rewards]) -> npt.NDArray[np.bool_]:
    """[groups]. `rewards`: by group. Raises UserError, and HostError where this host has another function."""
    config, stage = partition.stage.config, partition.stage.id
    name, args = str(config["function"]), dict(config["args"])
    if name in OURS:
        try:
            return np.array([OURS[name](each, **args) for each in rewards], np.bool_)
        except (TypeError, UserError) as error:
            raise UserError(f"{name}: {error}", stage) from error
    outcomes = by_workers(partition, name, lambda pool: _outcomes(partition, pool, name, rewards, args))
    for outcome in outcomes:
        if outcome.error:
            raise UserError(outcome.error, stage)
        if outcome.value not in (0, 1):
            raise UserError(f"{name} gave {shown(outcome.value)} where True or False is due", stage)
    return np.array([outcome.value for outcome in outcomes], np.bool_)


def _outcomes(
    partition: Partition, pool: Pool, name: str, rewards: Sequence[Rewards], args: Mapping[str, Any]
) -> list[Outcome]:
    """Of a call for each group."""
    names = asked_of_group(pool.signature(name, partition.progress).parameters, args)
    calls = [
        Arguments((), {key: value for key, value in row.items() if key in names} | {**args})
        for row in _groups(partition, rewards)
    ]
    terms = Terms(float(partition.stage.config.get("timeout_s", 30.0)), ends_at_error=True)
    return pool.map(name, calls, Due(), terms, partition.progress)


def _groups(partition: Partition, rewards: Sequence[Rewards]) -> Iterator[dict[str, Any]]:
    """All that may be asked for, of each group."""
    rows = list(answers_of(read_rollout(partition)).rows((*EACH, *BESIDE), partition.step))
    for index, given in enumerate(rewards):
        own = rows[index * len(given) : (index + 1) * len(given)]
        group = {name: own[0][name] if name in SHARED else [row[name] for row in own] for name in own[0]}
        yield {"rewards": list(given), "completions": group.pop("completion"), **group}
