"""reward: scores each completion by a function. Writes `reward`: one float32 a completion.

A function of your own asks by name for what it needs, and for the stage's `args`:

    def reward(completion: str, answer: str, prompt: str, entry: dict, **args) -> float
    def reward(completions: list[str], answers: list[str], prompts, entries, **args) -> list[float]

`prompt` is the entry's prompt, `entry` all that the data says of it. The second form gets a partition at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dflow_protocols.pipeline.grammar.scoring import ALL, EACH, LENT, MisfitError, Parameter, calling
from dflowd.data import columns
from dflowd.data.order import DataSet
from dflowd.data.sources import Entry
from dflowd.jobs.failures import UserError
from dflowd.slots.doing import Doing

from ..workers.float32 import float32_of, float32s_of
from ..workers.user_code import call_user, load_function
from .partition import Output, Partition, read_rollout

Score = Callable[[Sequence[str], Sequence[Entry]], columns.Array]
"""(completions, their entries) -> rewards, [completions] float32"""

KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: "position",
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "name",
    inspect.Parameter.KEYWORD_ONLY: "name",
    inspect.Parameter.VAR_KEYWORD: "rest",
}


def exact_match(completion: str, answer: str, *, prompt: str, entry: Entry) -> float:
    """1 if the completion is the answer, case and surrounding space aside, else 0."""
    return float(completion.strip().casefold() == answer.strip().casefold())


def reasoning_gym(completion: str, answer: str, *, prompt: str, entry: Entry, data: DataSet) -> float:
    """reasoning-gym's own verifier for the task, in [0, 1]. Some give parts of the point for parts of the answer."""
    return data.source.score(completion, entry)


def scorer(partition: Partition, data: DataSet) -> Score:
    """The stage's function, ready to be called. Raises UserError."""
    stage = partition.stage
    name = str(stage.config["function"])
    is_user = not name.startswith("dflowd.")
    with partition.opaque(), partition.board.showing(Doing(stage.id, f"the import of {name}", is_user)):
        function = load_function(name, partition.base, partition.pipeline)  # a module may load a model of its own
    doing = Doing(stage.id, name, is_user)
    args: dict[str, Any] = dict(stage.config["args"])
    if "data" in LENT.get(name, ()):
        args["data"] = data
    try:
        how = calling(_parameters(function), args)
    except MisfitError as error:
        raise UserError(f"{name} {error}", stage.id) from error

    def score(completions: Sequence[str], entries: Sequence[Entry]) -> columns.Array:
        given = (completions, [e["answer"] for e in entries], [e["question"] for e in entries], entries)
        if how.all:
            asked = {key: list(values) for key, values in zip(ALL, given, strict=True) if key in how.names}
            said = call_user(partition.board, doing, function, **asked, **args)
            partition.progress()
            return float32s_of(said, len(completions), name, stage.id)
        rewards = np.zeros(len(completions), np.float32)
        for index, values in enumerate(zip(*given, strict=True)):
            asked = {key: value for key, value in zip(EACH, values, strict=True) if key in how.names}
            said = call_user(partition.board, doing, function, **asked, **args)
            rewards[index] = float32_of(said, name, stage.id)
            partition.progress()
        return rewards

    return score


def _parameters(function: Callable[..., Any]) -> list[Parameter]:
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise MisfitError("does not say what it takes") from error
    empty = inspect.Parameter.empty
    return [Parameter(p.name, KINDS[p.kind], p.default is empty) for p in found if p.kind in KINDS]


def reward(partition: Partition) -> Output:
    rollout = read_rollout(partition)
    maker = partition.pipeline.stage(partition.source("rollout").partition(".")[0])
    score = scorer(partition, partition.data(maker.config["data"]))
    entries = [rollout.entries[index // rollout.width] for index in range(len(rollout.completions))]
    rewards = score(rollout.completions, entries)
    return Output("reward", {"reward": columns.pack(rewards)}, reward_metrics(rewards))


def reward_metrics(rewards: columns.Array) -> dict[str, float]:
    wide = rewards.astype(np.float64)
    sums = {"rewarded": len(wide), "reward_sum": wide.sum(), "reward_sq_sum": np.square(wide).sum()}
    return sums | ({"reward_max": wide.max(), "reward_min": wide.min()} if len(wide) else {})
