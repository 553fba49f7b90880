"""reward: scores each completion by a function. Writes `reward`: one float32 a completion, NaN where it has no score.

A function of your own asks by name for what it needs, and for the stage's `args`:

    def reward(completion: str, answer: str, prompt: str, entry: dict, **args) -> float | None
    def reward(completions: list[str], answers: list[str], prompts, entries, **args) -> list[float | None]

`prompt` is the entry's prompt, `entry` all that the data says of it; it may ask for `tokens` (how many), `truncated`,
`finished`, `step`, `messages` (the conversation that was put to the model) and `turns` (what was said then, in
conversation with an environment), too. The second form gets a partition at once. None says that a completion cannot be
scored. Calls of an `async def` wait beside each other. Workers run it, and may end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dflow_protocols import metrics
from dflow_protocols.pipeline.entries.conversation import ASSISTANT, Message
from dflow_protocols.pipeline.grammar.scoring import ALL, BESIDE, EACH, LENT, calling
from dflowd.data import columns
from dflowd.data.contract import Data
from dflowd.data.sources import Entry
from dflowd.jobs.failures import UserError
from dflowd.workers.outcome import Arguments, Due, Outcome
from dflowd.workers.pool import Pool, Terms

from .calls import by_workers
from .partition import Output, Partition, Rollout, read_rollout

Numbers = list[float | None]
SHARED = ("answer", "prompt", "entry", "messages", "step")  # by all completions of a group


def exact_match(completion: str, answer: str, *, prompt: str, entry: Entry) -> float:
    """1 if the completion is the answer, case and surrounding space aside, else 0."""
    return float(completion.strip().casefold() == answer.strip().casefold())


def reasoning_gym(completion: str, answer: str, *, prompt: str, entry: Entry, data: Data) -> float:
    """reasoning-gym's own verifier for the task, in [0, 1]. Some give parts of the point for parts of the answer."""
    return data.score(completion, entry)


def environment(completion: str, answer: str, *, prompt: str, entry: Entry, earned: float) -> float:
    """What the environment of the conversation gave for its turns, added up."""
    return earned


OURS: Mapping[str, Callable[..., float]] = {
    f"{exact_match.__module__}:{each.__name__}": each for each in (exact_match, reasoning_gym, environment)
}
"""They run in the engine, which trusts them to come back. By the names that specs give them."""


@dataclass(frozen=True, slots=True)
class Scores:
    """`values`: [completions] float32, NaN where there is no score. `errors`, `timeouts`: completions whose call
    failed, and of these those where a limit decided, not the inputs. `note`: the first failure. `counts`: sums of what
    the calls counted."""

    values: columns.Array
    errors: int = 0
    timeouts: int = 0
    note: str = ""
    counts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answers:
    """What is judged, by completion. `tokens`: how many each has; `truncated`: whether it was cut off."""

    completions: Sequence[str]
    entries: Sequence[Entry]
    tokens: Sequence[int]
    truncated: Sequence[bool]
    messages: Sequence[list[Message]]
    turns: Sequence[list[Message]] | None = None  # None: each is one
    earned: columns.Array | None = None  # float32, NaN where an environment gave no score; None: there was none

    def all(self, names: Sequence[str], step: int) -> dict[str, Any]:
        """Of ALL and BESIDE, what is named."""
        rows = list(self.rows((*EACH, *BESIDE), step))
        singular = dict(zip(ALL, EACH, strict=True)) | {name: name for name in BESIDE}
        given: dict[str, Any] = {name: [row[one] for row in rows] for name, one in singular.items()}
        given["step"] = step
        return {name: value for name, value in given.items() if name in names}

    def rows(self, names: Sequence[str], step: int) -> Iterator[dict[str, Any]]:
        """Of EACH and BESIDE, what is named, for each completion."""
        for index, (said, entry) in enumerate(zip(self.completions, self.entries, strict=True)):
            truncated = bool(self.truncated[index])
            turns = [{"role": ASSISTANT, "content": said}] if self.turns is None else self.turns[index]
            beside = (self.tokens[index], truncated, not truncated, step, self.messages[index], turns)
            known = dict(zip(EACH, (said, entry["answer"], entry["question"], entry), strict=True))
            known |= dict(zip(BESIDE, beside, strict=True))
            yield {name: value for name, value in known.items() if name in names}

    def groups(self, rewards: columns.Array, step: int) -> Iterator[dict[str, Any]]:
        """Of OF_GROUP and BESIDE all, for each group. `rewards`: [groups, samples], NaN without a score."""
        rows = list(self.rows((*EACH, *BESIDE), step))
        for index, given in enumerate(scores_of(rewards)):
            own = rows[index * len(given) : (index + 1) * len(given)]
            group = {name: own[0][name] if name in SHARED else [row[name] for row in own] for name in own[0]}
            yield {"rewards": given, "completions": group.pop("completion"), **group}


def scores_of(rewards: columns.Array) -> list[Numbers]:
    """By group, None without a score. `rewards`: [groups, samples], NaN without one."""
    return [[None if np.isnan(one) else float(one) for one in row] for row in rewards]


def reward(partition: Partition) -> Output:
    data = partition.data(partition.beginning().config["data"])
    found = scores(partition, data, answers_of(read_rollout(partition)))
    failed = {metrics.REWARD_ERRORS: found.errors, metrics.REWARD_TIMEOUTS: found.timeouts}
    figures = reward_metrics(found.values) | {name: float(count) for name, count in failed.items() if count}
    return Output("reward", {"reward": columns.pack(found.values)}, figures | found.counts, note=found.note)


def answers_of(rollout: Rollout) -> Answers:
    entries = [rollout.entries[index // rollout.width] for index in range(len(rollout.completions))]
    messages = [rollout.messages[index // rollout.width] for index in range(len(rollout.completions))]
    spoken, truncated = rollout.spoken.tolist(), rollout.truncated.tolist()
    return Answers(rollout.completions, entries, spoken, truncated, messages, rollout.turns, rollout.earned)


def reward_metrics(rewards: columns.Array) -> dict[str, float]:
    """rewards: [completions], NaN where one has no score."""
    wide = rewards[~np.isnan(rewards)].astype(np.float64)
    sums = {"rewarded": len(wide), "reward_sum": wide.sum(), "reward_sq_sum": np.square(wide).sum()}
    sums |= {"reward_max": wide.max(), "reward_min": wide.min()} if len(wide) else {}
    without = len(rewards) - len(wide)
    return sums | ({metrics.UNSCORED: without} if without else {})


def scores(partition: Partition, data: Data, answers: Answers) -> Scores:
    """By the stage's function; what an environment left without a score has none. Raises UserError, and HostError where
    this host has another function."""
    found = _scored(partition, data, answers)
    if answers.earned is None:
        return found
    return replace(found, values=np.where(np.isnan(answers.earned), np.float32(np.nan), found.values))


def _scored(partition: Partition, data: Data, answers: Answers) -> Scores:
    config = partition.stage.config
    name = str(config["function"])
    args: dict[str, Any] = dict(config["args"])
    if name in OURS:
        values = np.zeros(len(answers.completions), np.float32)
        for index, row in enumerate(answers.rows(EACH, partition.step)):
            lent = {"data": data, "earned": 0.0 if answers.earned is None else answers.earned[index]}
            values[index] = OURS[name](**row, **args, **{key: lent[key] for key in LENT.get(name, ())})
            partition.progress()
        return Scores(values)
    each, outcomes = by_workers(partition, name, lambda pool: _outcomes(partition, pool, name, answers, args))
    return _joined(each, outcomes, partition)


def _outcomes(
    partition: Partition, pool: Pool, name: str, answers: Answers, args: Mapping[str, Any]
) -> tuple[int, list[Outcome]]:
    """How many completions a call is of, and the outcome of each call."""
    config, tick = partition.stage.config, partition.progress
    is_strict = config.get("on_error", "fail") == "fail"
    terms = Terms(float(config.get("timeout_s", 30.0)), int(config.get("concurrency", 8)), ends_at_error=is_strict)
    how = calling(pool.signature(name, tick).parameters, args)
    if how.all:
        count = len(answers.completions)
        return count, pool.map(
            name, [Arguments((), {**answers.all(how.names, partition.step), **args})], Due(count), terms, tick
        )
    calls = [Arguments((), {**row, **args}) for row in answers.rows(how.names, partition.step)]
    return 1, pool.map(name, calls, Due(), terms, tick)


def _joined(each: int, outcomes: Sequence[Outcome], partition: Partition) -> Scores:
    """One score a completion, of calls for `each` of them."""
    failed = [outcome for outcome in outcomes if outcome.error]
    on_error = partition.stage.config.get("on_error", "fail")
    if failed and on_error == "fail":
        raise UserError(failed[0].error, partition.stage.id)
    instead = 0.0 if on_error == "zero" else None
    given: Numbers = []
    for outcome in outcomes:
        if outcome.error:
            given += [instead] * each
        else:
            given += outcome.value if isinstance(outcome.value, list) else [outcome.value]
    values = np.array([np.nan if value is None else value for value in given], np.float32)
    timeouts = sum(each for outcome in failed if not outcome.is_of_inputs)
    note = f"`{partition.stage.config['function']}` gave None for each of them" if np.isnan(values).all() else ""
    counts = dict(metrics.merge(outcome.counts.items() for outcome in outcomes))
    return Scores(values, each * len(failed), timeouts, failed[0].error if failed else note, counts)
