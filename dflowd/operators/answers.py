"""What stages take from the data's own answers, which nobody sampled.

sft: tokens of demonstrations. Each one is a group; the stage's update is then made like any other. Writes `batch`: per
demonstration `prompt` and `tokens` (its answer, the end included). Of a conversation `tokens` are all that comes behind
the beginning of its first answer, and `mask` says which of them the assistant says.

preferences: pairs of answers, of which one is preferred. Writes `rollout`, as `generate` does (generate.py), of two
completions a prompt: the answer of the entry, then its rejected one; it has no `logprobs`. And `advantage`: 1 and -1,
as `method: pairs` gives them to a policy's own completions.
"""

from __future__ import annotations

import numpy as np

from dflowd.asking.context import check_context, prompts_of
from dflowd.data import columns
from dflowd.data.demonstrations import answered, demonstrate
from dflowd.data.prompts import completion_text
from dflowd.jobs.failures import UserError
from dflowd.shards.layout import ragged, texts

from .generate import positions_of
from .partition import Output, Partition

SIGNS = (1.0, -1.0)  # of a pair's completions, in their order


def sft(partition: Partition) -> Output:
    config = partition.stage.config
    model = partition.description()
    data = partition.data(config["data"])
    start = partition.step * config["batch"]
    entries = [data.demonstration(start + at, config["demos"]) for at in range(partition.first, partition.end)]
    found = [demonstrate(model.tokenizer, data, entry, model.stops) for entry in entries]
    prompts, said = [each.prompt for each in found], [each.said for each in found]
    check_context(partition, data, entries, prompts, [len(each) for each in said], "an answer")
    batch = {"prompt": ragged("i32", prompts), "tokens": ragged("i32", said)}
    if data.has_conversations:
        mask = np.concatenate([np.array(each.mask, np.uint8) for each in found])
        batch["mask"] = columns.pack(mask, np.array([len(each) for each in said], np.int32))
    return Output("batch", batch, groups=tuple((sum(each.mask), 1) for each in found))


def preferences(partition: Partition) -> list[Output]:
    model, data = partition.description(), partition.data(partition.stage.config["data"])
    positions = positions_of(partition)
    entries = [data.training(position) for position in positions]
    prompts = prompts_of(partition, data, entries)
    pairs = [(entry, entry[key]) for entry in entries for key in ("answer", "rejected")]
    said = [answered(model.tokenizer, data, entry, answer, model.stops) for entry, answer in pairs]
    lengths = np.array([len(each) for each in said], np.int32)
    most = partition.stage.config["max_tokens"]
    if lengths.max() > most:
        entry, answer = pairs[int(lengths.argmax())]
        what = f"{data.place(entry)}: an answer of {lengths.max()} tokens is longer than `max_tokens`, {most}"
        raise UserError(f"{what}: {answer[:60]!r}; raise it, or take the line out", partition.stage.id)
    check_context(partition, data, entries, prompts, lengths.reshape(-1, 2).max(1).tolist(), "an answer")
    rollout = {
        "position": columns.pack(np.array(positions, np.int64)),
        "prompt": ragged("i32", prompts),
        "tokens": ragged("i32", said),
        "text": texts([completion_text(model.tokenizer, each) for each in said]),
        "truncated": columns.pack(np.zeros(len(said), np.uint8)),
    }
    groups = tuple((int(tokens), 2) for tokens in lengths.reshape(-1, 2).sum(1))
    signs = columns.pack(np.tile(np.array(SIGNS, np.float32), len(entries)))
    metrics = {"samples": len(said), "completion_tokens": int(lengths.sum())}
    return [Output("rollout", rollout, metrics), Output("advantage", {"advantage": signs}, groups=groups)]
