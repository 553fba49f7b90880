"""sft: tokens of demonstrations. Each one is a group; the stage's update is then made like any other.

Writes `batch`: per demonstration `prompt` and `tokens` (its answer, the end included). Of a conversation `tokens` are
all that comes behind the beginning of its first answer, and `mask` says which of them the assistant says.
"""

from __future__ import annotations

import numpy as np

from dflowd.asking.context import check_context
from dflowd.data import columns
from dflowd.data.demonstrations import demonstrate
from dflowd.shards.layout import ragged

from .partition import Output, Partition


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
