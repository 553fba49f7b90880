"""generate: samples a group of completions for each prompt; continue: goes on with those that are not done.

Writes `rollout`: per group `position` (in the training order) and `prompt` (tokens); per completion `tokens`,
`logprobs` (of the full vocabulary, at the temperature), `text`, `truncated`, with `top_p` below 1 `nucleus_logprobs`
(of the set that was drawn from), and where rollouts may be of any of several versions the `version` that said each
token. In conversation with an environment `tokens` are all that is behind the prompt, `logprobs` are 0 where nothing
was sampled, `text` is what the model said last, and there are `turn`, `turn_reward`, `turns` and `opening`
(asking/said.py). A `reply` writes the same, without `turn_reward`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from dflow_protocols.metrics import PROMPTS_DROPPED, REWARD_ERRORS, REWARD_TIMEOUTS
from dflowd.asking.said import Said
from dflowd.asking.say import say
from dflowd.data import columns
from dflowd.data.prompts import completion_text
from dflowd.jobs.counter_random import digest
from dflowd.models.sampling import Completions, Sampler, Seats
from dflowd.shards.layout import Column, ragged, read_texts, texts

from .partition import Output, Partition


def generate(partition: Partition) -> Output:
    config = partition.stage.config
    data = partition.data(config["data"])
    positions = positions_of(partition)
    entries = [data.training(position) for position in positions]
    said = say(partition, data, entries, config["group"], sampler_of(partition))
    made = written(np.array(positions, np.int64), said, partition.version)
    if config.get("segment_tokens"):  # what it did not end a `continue` does
        made = replace(made, metrics={**made.metrics, "truncated": 0})
    if partition.first or (dropped := data.dropped) is None:
        return made
    return replace(made, metrics={**made.metrics, PROMPTS_DROPPED: dropped})  # once a step: partitions' sums add up


def sampler_of(partition: Partition, begun_by: str = "") -> Sampler:
    """As the config of a stage that samples what is trained on says. `begun_by`: the stage whose random numbers go on,
    if not its own."""
    config, stage = partition.stage.config, begun_by or partition.stage.id
    return Sampler(
        temperature=config["temperature"],
        top_p=config["top_p"],
        stop=tuple(config.get("stop", ())),
        key=digest("sample", str(partition.pipeline.id), partition.step, stage),
    )


def written(positions: columns.Array, said: Said, version: int | None = None) -> Output:
    """A rollout of what was said, with its figures. positions: [groups] int64; version: as of Partition."""
    rollout = {
        "position": columns.pack(positions),
        "prompt": ragged("i32", said.prompts),
        "tokens": columns.pack(said.tokens, said.lengths),
        "logprobs": columns.pack(said.logprobs, said.lengths),
        "text": texts(said.texts),
        "truncated": columns.pack(said.truncated.astype(np.uint8)),
        **said.columns(),
    }
    if version is not None:
        rollout["version"] = columns.pack(np.full(len(said.tokens), version, np.int32), said.lengths)
    metrics: dict[str, float] = {
        "samples": len(said.texts),
        "completion_tokens": int(said.spoken.sum()),
        "completion_length_max": int(said.spoken.max(initial=0)),
        "truncated": int(said.truncated.sum()),
    }
    failed = {REWARD_ERRORS: said.errors, REWARD_TIMEOUTS: said.timeouts}
    metrics |= {name: count for name, count in failed.items() if count}
    if said.nucleus is not None:
        rollout["nucleus_logprobs"] = columns.pack(said.nucleus, said.lengths)
        mass = np.exp(said.logprobs.astype(np.float64) - said.nucleus)[said.sampled]
        metrics["nucleus_mass_sum"] = float(mass.sum())
    return Output("rollout", rollout, metrics, note=said.note)


def positions_of(partition: Partition) -> list[int]:
    """Of its groups in the training order. The first rounds of all steps go through it one after the other, whatever
    further ones there are; those of the second round go on where they end, and so on."""
    prompts, steps = partition.stage.config["prompts"], partition.pipeline.schedule.steps
    rounds = [divmod(group, prompts) for group in range(partition.first, partition.end)]
    return [(index * steps + partition.step) * prompts + place for index, place in rounds]


def go_on(partition: Partition) -> Output:
    """Goes on with the completions of a rollout that are not done. What is done stays as it is, so a partition of which
    all is done costs nothing more. A token's random number is that which it would have had in one piece."""
    found, config = partition.read("rollout"), partition.stage.config
    lengths = columns.lengths(found["tokens"])
    cut = columns.values(found["truncated"]).astype(np.bool_)
    rows = np.flatnonzero(cut & (lengths < config["max_tokens"]))
    if not len(rows):
        return Output("rollout", dict(found), {"completion_length_max": int(lengths.max(initial=0)), "truncated": 0})
    prompts, said = columns.rows(found["prompt"]), columns.rows(found["tokens"])
    width = len(said) // len(prompts)
    seats = Seats(
        (partition.first + rows // width).astype(np.uint64),
        (rows % width).astype(np.uint64),
        lengths[rows].astype(np.uint64),
        np.minimum(config["segment_tokens"], config["max_tokens"] - lengths[rows]).astype(np.int64),
    )
    asked = [[*prompts[row // width].tolist(), *said[row].tolist()] for row in rows]
    more = partition.sample(asked, seats, sampler_of(partition, partition.beginning().id))
    made = _longer(partition, found, rows, more)
    whole = columns.lengths(made["tokens"])
    is_cut = columns.values(made["truncated"]).astype(np.bool_) & (whole >= config["max_tokens"])
    metrics: dict[str, float] = {
        "completion_tokens": int(more.lengths.sum()),
        "completion_length_max": int(whole.max(initial=0)),
        "truncated": int(is_cut.sum()),
    }
    if more.nucleus is not None:
        counted = np.arange(more.tokens.shape[1]) < more.lengths[:, None]
        metrics["nucleus_mass_sum"] = float(np.exp(more.logprobs.astype(np.float64) - more.nucleus)[counted].sum())
    return Output("rollout", made, metrics)


def _longer(partition: Partition, found: Mapping[str, Column], rows: Any, more: Completions) -> dict[str, Column]:
    """The rollout with what was said behind these rows. rows: [rows] int64, of which each has a row of `more`."""
    given = {"tokens": more.tokens, "logprobs": more.logprobs}
    if more.nucleus is not None:
        given["nucleus_logprobs"] = more.nucleus
    if partition.version is not None:
        given["version"] = np.full(more.tokens.shape, partition.version, np.int32)
    made = dict[str, Column]()
    for name, values in given.items():
        behind = [values[0, :0]] * len(columns.lengths(found["tokens"]))
        for at, row in enumerate(rows):
            behind[row] = values[at, : more.lengths[at]]
        made[name] = columns.joined(found[name], behind)
    cut = columns.values(found["truncated"]).copy()
    cut[rows] = more.truncated
    tokens, said = columns.rows(made["tokens"]), read_texts(found["text"])
    tokenizer = partition.description().tokenizer
    for row in rows:
        said[row] = completion_text(tokenizer, tokens[row].tolist())
    return {**found, **made, "truncated": columns.pack(cut), "text": texts(said)}
