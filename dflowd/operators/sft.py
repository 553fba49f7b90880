"""sft: tokens of demonstrations. Each one is a group; the stage's update is then made like any other.

Writes `batch`: per demonstration `prompt` and `tokens` (its answer, the end included).
"""

from __future__ import annotations

from dflowd.data.prompts import answer_tokens, prompt_tokens
from dflowd.shards.layout import ragged

from .context import check_context
from .partition import Output, Partition


def sft(partition: Partition) -> Output:
    config = partition.stage.config
    tokenizer = partition.description().tokenizer
    data = partition.data(config["data"])
    start = partition.step * config["batch"]
    entries = [data.demonstration(start + at, config["demos"]) for at in range(partition.first, partition.end)]
    answers = [answer_tokens(tokenizer, entry) for entry in entries]
    prompts = [prompt_tokens(tokenizer, entry, data.wording) for entry in entries]
    check_context(partition, data, entries, prompts, [len(answer) for answer in answers], "an answer")
    batch = {
        "prompt": ragged("i32", prompts),
        "tokens": ragged("i32", answers),
    }
    return Output("batch", batch, groups=tuple((len(answer), 1) for answer in answers))
