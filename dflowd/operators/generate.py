"""generate: samples a group of completions for each prompt.

Writes `rollout`: per group `position` (in the training order) and `prompt` (tokens); per completion `tokens`,
`logprobs` (of the full vocabulary, at the temperature), `text`, `truncated`, with `top_p` below 1 `nucleus_logprobs`
(of the set that was drawn from), and where rollouts may be of any of several versions the `version` that said each
token. In conversation with an environment `tokens` are all that is behind the prompt, `logprobs` are 0 where nothing
was sampled, `text` is what the model said last, and there are `turn`, `turn_reward`, `turns` and `opening`
(asking/said.py). A `reply` writes the same, without `turn_reward`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dflow_protocols.metrics import PROMPTS_DROPPED, REWARD_ERRORS, REWARD_TIMEOUTS
from dflowd.asking.said import Said
from dflowd.asking.say import say
from dflowd.data import columns
from dflowd.jobs.counter_random import digest
from dflowd.models.sampling import Sampler
from dflowd.shards.layout import ragged, texts

from .partition import Output, Partition


def generate(partition: Partition) -> Output:
    config = partition.stage.config
    data = partition.data(config["data"])
    positions = positions_of(partition)
    entries = [data.training(position) for position in positions]
    said = say(partition, data, entries, config["group"], sampler_of(partition))
    made = written(np.array(positions, np.int64), said, partition.version)
    if partition.first or (dropped := data.dropped) is None:
        return made
    return replace(made, metrics={**made.metrics, PROMPTS_DROPPED: dropped})  # once a step: partitions' sums add up


def sampler_of(partition: Partition) -> Sampler:
    """As the config of a stage that samples what is trained on says."""
    config = partition.stage.config
    return Sampler(
        temperature=config["temperature"],
        top_p=config["top_p"],
        stop=tuple(config["stop"]),
        key=digest("sample", str(partition.pipeline.id), partition.step, partition.stage.id),
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
