"""evaluate: measures accuracy on data that is never trained on. Writes `evaluation`: one float32 `score` a prompt.

Prompts past the end of the data are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dflow_protocols import metrics
from dflowd.data import columns
from dflowd.data.contract import Data
from dflowd.data.prompts import completion_text
from dflowd.data.sources import Entry
from dflowd.jobs.counter_random import digest
from dflowd.models.sampling import Sampler
from dflowd.shards.layout import texts

from .context import check_context, prompts_of
from .partition import Output, Partition
from .reward import Answers, scores


def evaluate(partition: Partition) -> Output:
    config = partition.stage.config
    model = partition.description()
    data = partition.data(config["data"].partition(".")[0])
    entries = evaluated(config, partition.data, range(partition.first, partition.end))
    sampler = Sampler(
        max_tokens=config["max_tokens"],
        temperature=config["temperature"],
        top_p=config["top_p"],
        greedy=config["greedy"],
        stop=tuple(config.get("stop", ())),
        key=digest("evaluate", str(partition.pipeline.id), partition.step, partition.stage.id),
    )
    prompts = prompts_of(partition, data, entries)
    check_context(partition, data, entries, prompts, [config["max_tokens"]] * len(prompts), "`max_tokens`")
    made = partition.sample(prompts, partition.first, 1, sampler)
    said = [
        completion_text(model.tokenizer, row[:length].tolist())
        for row, length in zip(made.tokens, made.lengths, strict=True)
    ]
    answers = Answers(said, entries, made.lengths.tolist(), made.truncated.tolist(), data)
    judged = scores(partition, data, answers)
    without = np.isnan(judged.values)
    right = np.where(without, np.float32(0), judged.values)  # what has no score is no right answer
    unscored = int(without.sum()) + (judged.errors if config.get("on_error") == "zero" else 0)
    figures = {
        "evaluated": len(entries),
        "correct": float(right.astype(np.float64).sum()),
        "evaluated_tokens": int(made.lengths.sum()),
        "evaluated_truncated": int(made.truncated.sum()),
    }
    figures |= judged.counts | ({metrics.EVALUATED_UNSCORED: unscored} if unscored else {})
    evaluation = {
        "score": columns.pack(right),
        "text": texts(said),
        "question": texts([entry["question"] for entry in entries]),
    }
    return Output("evaluation", evaluation, figures, note=judged.note)


def evaluated(config: Mapping[str, Any], data: Callable[[str], Data], wanted: range) -> list[Entry]:
    """The entries that an evaluation of this config asks, by their places in it; fewer where it has no more."""
    name, _, held_out = str(config["data"]).partition(".")
    source = data(name)
    found = [source.held_out(index) if held_out else source.training(index) for index in wanted]
    return [entry for entry in found if entry is not None]
