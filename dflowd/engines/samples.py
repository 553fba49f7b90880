"""A few completions of a partition for people to read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dflow_protocols.pipeline import Pipeline
from dflow_protocols.pipeline.entries.conversation import Message
from dflow_protocols.pipeline.weighing import reward_weights
from dflowd.data import columns
from dflowd.data.contract import Data
from dflowd.data.sources import Entry
from dflowd.operators.evaluate import evaluated
from dflowd.operators.partition import Columns
from dflowd.shards.layout import read_texts

COUNT = 4  # groups, one completion of each

Sample = dict[str, Any]


def samples_of(pipeline: Pipeline, known: Mapping[str, Columns], data: Callable[[str], Data]) -> tuple[Sample, ...]:
    """{prompt, completion, answer, reward} of the first groups of a rollout or an evaluation; none of other chains. Of
    a conversation, and of replies, `completion` is what was said last, and `turns` are the messages behind its prompt.

    Where several stages reward, `reward` is what training goes by (None if a stage of the user's own joins them), and
    `rewards` each one's, by stage. `known`: "stage.output" -> columns of the step's first partition.
    """
    given = {
        name.partition(".")[0]: columns.values(found["reward"])
        for name, found in known.items()
        if name.endswith(".reward")
    }
    for name, found in known.items():
        if name.endswith(".evaluation"):
            entries = evaluated(pipeline.stage(name.partition(".")[0]).config, data, range(COUNT))
            rows = zip(entries, read_texts(found["text"]), columns.values(found["score"]), _turns(found), strict=False)
            return tuple(_sample(entry, said, score, turns=turns) for entry, said, score, turns in rows)
    last = next((name for name in reversed(list(known)) if name.endswith(".rollout")), None)
    if last is None:
        return ()
    found, beginning = known[last], pipeline.beginning_of(last.partition(".")[0])
    said, turns, width = read_texts(found["text"]), _turns(found), beginning.width
    trained = _trained(pipeline, given, last)
    source = data(beginning.config["data"])
    return tuple(
        _sample(
            source.training(position),
            said[group * width],
            None if trained is None else trained[group * width],
            {stage: _score(values[group * width]) for stage, values in given.items()},
            turns[group * width],
        )
        for group, position in enumerate(columns.values(found["position"])[:COUNT].tolist())
    )


def _turns(found: Columns) -> list[Any]:
    """Of each completion the messages of its conversation; None where it is one of its own."""
    if "turns" not in found:
        return [None] * len(read_texts(found["text"]))
    return [json.loads(row) for row in read_texts(found["turns"])]


def _trained(pipeline: Pipeline, given: Mapping[str, columns.Array], rollout: str) -> columns.Array | None:
    """[completions]: what the `advantage` stage of this rollout adds up, or the only reward that there is."""
    for stage in pipeline.stages:
        if rollout not in stage.reads:
            continue
        weights = reward_weights(stage) if stage.operator.compares else {}
        if weights and all(read.partition(".")[0] in given for read in weights):
            parts = [weight * given[read.partition(".")[0]].astype(np.float64) for read, weight in weights.items()]
            return np.asarray(sum(parts[1:], parts[0]))
    return next(iter(given.values())) if len(given) == 1 else None


def _score(value: Any) -> float | None:
    """None for a completion that has no score."""
    return None if np.isnan(value) else float(value)


def _sample(
    entry: Entry,
    completion: str,
    reward: Any,
    rewards: Mapping[str, float | None] | None = None,
    turns: list[Message] | None = None,
) -> Sample:
    made = {"prompt": entry["question"], "completion": completion, "answer": entry["answer"]}
    made["reward"] = None if reward is None else _score(reward)
    made |= {} if turns is None else {"turns": turns}
    return made | ({"rewards": dict(rewards)} if rewards and len(rewards) > 1 else {})
