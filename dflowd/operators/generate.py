"""generate: samples a group of completions for each prompt.

Writes `rollout`: per group `position` (in the training order) and `prompt` (tokens); per completion `tokens`,
`logprobs` (of the full vocabulary, at the temperature), `text`, `truncated`, and with `top_p` below 1
`nucleus_logprobs` (of the set that was drawn from).
"""

from __future__ import annotations

import numpy as np

from dflow_protocols.metrics import PROMPTS_DROPPED
from dflowd.data import columns
from dflowd.data.prompts import completion_text
from dflowd.jobs.counter_random import digest
from dflowd.models.sampling import Sampler
from dflowd.shards.layout import ragged, texts

from .context import check_context, prompts_of
from .partition import Output, Partition


def generate(partition: Partition) -> Output:
    config = partition.stage.config
    model = partition.description()
    data = partition.data(config["data"])
    positions = [partition.step * config["prompts"] + group for group in range(partition.first, partition.end)]
    entries = [data.training(position) for position in positions]
    prompts = prompts_of(partition, data, entries)
    check_context(partition, data, entries, prompts, [config["max_tokens"]] * len(prompts), "`max_tokens`")
    sampler = Sampler(
        max_tokens=config["max_tokens"],
        temperature=config["temperature"],
        top_p=config["top_p"],
        stop=tuple(config["stop"]),
        key=digest("sample", str(partition.pipeline.id), partition.step, partition.stage.id),
    )
    made = partition.sample(prompts, partition.first, config["group"], sampler)
    counted = np.arange(made.tokens.shape[1]) < made.lengths[:, None]
    said = [row[:length].tolist() for row, length in zip(made.tokens, made.lengths, strict=True)]
    rollout = {
        "position": columns.pack(np.array(positions, np.int64)),
        "prompt": ragged("i32", prompts),
        "tokens": columns.pack(made.tokens[counted], made.lengths),
        "logprobs": columns.pack(made.logprobs[counted], made.lengths),
        "text": texts([completion_text(model.tokenizer, tokens) for tokens in said]),
        "truncated": columns.pack(made.truncated.astype(np.uint8)),
    }
    metrics: dict[str, float] = {
        "samples": len(said),
        "completion_tokens": int(made.lengths.sum()),
        "completion_length_max": int(made.lengths.max(initial=0)),
        "truncated": int(made.truncated.sum()),
    }
    if partition.first == 0 and (dropped := data.dropped) is not None:  # once a step: partitions' sums add up
        metrics[PROMPTS_DROPPED] = dropped
    if made.nucleus is not None:
        rollout["nucleus_logprobs"] = columns.pack(made.nucleus[counted], made.lengths)
        mass = np.exp(made.logprobs[counted].astype(np.float64) - made.nucleus[counted])
        metrics["nucleus_mass_sum"] = float(mass.sum())
    return Output("rollout", rollout, metrics)
