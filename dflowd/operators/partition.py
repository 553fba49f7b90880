"""What an operator is given and what it gives: one stage's work on one partition."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dflow_protocols.pipeline import Pipeline, Stage
from dflow_protocols.pipeline.entries.conversation import ASSISTANT, Message
from dflow_protocols.work import Groups
from dflowd.data import columns
from dflowd.data.contract import Data
from dflowd.data.sources import Entry
from dflowd.jobs.failures import UserError
from dflowd.models.description import Description
from dflowd.models.policy import Policy
from dflowd.models.sampling import Completions, Sampler, Seats, sample
from dflowd.shards.layout import Column, read_texts
from dflowd.slots.doing import Board
from dflowd.workers.pool import Pool

Columns = Mapping[str, Column]


class Sampling(Protocol):
    """Completions by the stage's model, by whatever its engine samples with."""

    def __call__(self, prompts: Sequence[Sequence[int]], seats: Seats, sampler: Sampler) -> Completions:
        """Completions of each prompt, as many of each: rows in the order of `seats`, those of one prompt neighbours."""


@dataclass(frozen=True, slots=True)
class Partition:
    """One stage on one partition. Groups [first, end) of the step are its own."""

    pipeline: Pipeline
    code: Path  # folder that users' functions are loaded from
    step: int  # of the pipeline: all updates of it are made on what is the same
    stage: Stage
    first: int
    end: int
    inputs: Mapping[str, Columns]  # "stage.output" -> columns, of all stages of this partition done before
    policy: Callable[[str], Policy]  # a model of the spec with its parameters of the step's version
    data: Callable[[str], Data]
    progress: Callable[[], None]
    board: Board = field(default_factory=Board)  # what is being done, for who finds the engine dead or hung
    pool: Callable[[], Pool] | None = None  # of workers for the user's functions; None: the stage has none
    described: Callable[[str], Description] | None = None  # a model without its parameters; None: by `policy`
    sampling: Sampling | None = None  # None: the policy samples
    version: int | None = None  # the number of the version that samples, where it may be any of several

    def description(self) -> Description:
        """The stage's model, where its parameters are not needed."""
        return (self.described or self.policy)(str(self.stage.model))

    def sample(self, prompts: Sequence[Sequence[int]], seats: Seats, sampler: Sampler) -> Completions:
        """As Sampling."""
        if self.sampling is not None:
            return self.sampling(prompts, seats, sampler)
        return sample(self.policy(str(self.stage.model)), prompts, seats, sampler, self.progress)

    def workers(self) -> Pool:
        """What runs the user's functions."""
        assert self.pool is not None, "an engine that runs a user's functions has workers"
        return self.pool()

    def read(self, output: str) -> Columns:
        """The columns of the input that the stage reads as `output`."""
        return self.inputs[self.source(output)]

    def beginning(self) -> Stage:
        """The stage that gave its partitions their prompts, and each of them a group of completions."""
        return self.pipeline.beginning_of(self.stage.id)

    def source(self, output: str) -> str:
        """The "stage.output" that the stage reads as `output`. Raises UserError where it reads none."""
        for name in self.stage.reads:
            if name.endswith(f".{output}"):
                return name
        raise UserError(f"stage `{self.stage.id}` has to read a `{output}`", self.stage.id)


@dataclass(frozen=True, slots=True)
class Output:
    """`name`: of the output. `metrics`: sums by the names of dflow_protocols.metrics."""

    name: str
    columns: dict[str, Column]
    metrics: Mapping[str, float] = field(default_factory=dict)
    groups: Groups = ()
    note: str = ""  # the first failure that cost a completion its score


@dataclass(frozen=True, slots=True)
class Rollout:
    """A rollout as those after it see it: groups in order, each with `width` completions."""

    width: int
    entries: list[Entry]  # per group
    completions: list[str]  # per sample
    lengths: Any  # per sample, int32
    truncated: Any  # per sample, bool: whether it was cut off, and did not end by a token or a text that ends one
    tokens: list[Any]  # per sample, int32 arrays
    logprobs: list[Any]  # per sample, float32 arrays: of each token, as the sampler had it; NaN where there was none
    prompts: list[Any]  # per group, int32 arrays
    messages: list[list[Message]]  # per group: what was put to the model
    own: list[Any] | None  # per sample, bool arrays: the tokens that the model said; None: all of them
    turn: list[Any] | None  # per sample, int32 arrays: each token's turn, -1 if not sampled; None: of one
    turns: list[list[Message]] | None  # per sample: the messages behind those; None: it said one
    earned: Any  # per sample, float32: what an environment gave for it, NaN without a score; None: there was none

    @property
    def spoken(self) -> columns.Array:
        """[samples]: how many tokens the model said."""
        return self.lengths if self.own is None else np.array([int(row.sum()) for row in self.own], np.int32)

    def said_then(self, sample: int) -> list[Message]:
        """The messages behind those that were put to the model: one of its own, without an environment."""
        return [{"role": ASSISTANT, "content": self.completions[sample]}] if self.turns is None else self.turns[sample]


def read_rollout(partition: Partition) -> Rollout:
    """The rollout that the stage reads, with the entries of the data that it was sampled for."""
    found = partition.read("rollout")
    beginning = partition.beginning()
    data = partition.data(beginning.config["data"])
    entries = [data.training(int(position)) for position in columns.values(found["position"])]
    lengths = columns.lengths(found["tokens"])
    talks = {
        name: [json.loads(row) for row in read_texts(found[name])] for name in ("opening", "turns") if name in found
    }
    rewards = columns.rows(found["turn_reward"]) if "turn_reward" in found else None
    return Rollout(
        beginning.width,
        entries,
        read_texts(found["text"]),
        lengths,
        columns.values(found["truncated"]).astype(np.bool_),
        columns.rows(found["tokens"]),
        columns.rows(found["logprobs"]) if "logprobs" in found else [np.full(n, np.nan, np.float32) for n in lengths],
        columns.rows(found["prompt"]),
        talks.get("opening") or [data.wording_of(entry).conversation(entry) for entry in entries],
        columns.own_tokens(found),
        columns.rows(found["turn"]) if "turn" in found else None,
        talks.get("turns"),
        None if rewards is None else np.array([row.sum() for row in rewards], np.float32),
    )
