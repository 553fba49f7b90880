"""evaluate: measures accuracy on data that is never trained on. Writes `evaluation`: one float32 `score` a prompt.

Prompts past the end of the data are not counted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dflow_protocols import metrics
from dflowd.asking.say import say
from dflowd.data import columns
from dflowd.data.contract import Data
from dflowd.data.sources import Entry
from dflowd.jobs.counter_random import digest
from dflowd.models.sampling import Sampler
from dflowd.shards.layout import texts

from .partition import Output, Partition
from .reward import Answers, scores


def evaluate(partition: Partition) -> Output:
    config = partition.stage.config
    data = partition.data(config["data"].partition(".")[0])
    entries = evaluated(config, partition.data, range(partition.first, partition.end))
    sampler = Sampler(
        temperature=config["temperature"],
        top_p=config["top_p"],
        greedy=config["greedy"],
        stop=tuple(config.get("stop", ())),
        key=digest("evaluate", str(partition.pipeline.id), partition.step, partition.stage.id),
    )
    said = say(partition, data, entries, 1, sampler)
    answers = Answers(
        said.texts, entries, said.spoken.tolist(), said.truncated.tolist(), said.openings, said.turns, said.earned
    )
    judged = scores(partition, data, answers)
    without = np.isnan(judged.values)
    right = np.where(without, np.float32(0), judged.values)  # what has no score is no right answer
    unscored = int(without.sum()) + said.zeroed + (judged.errors if config.get("on_error") == "zero" else 0)
    figures = {
        "evaluated": len(entries),
        "correct": float(right.astype(np.float64).sum()),
        "evaluated_tokens": int(said.spoken.sum()),
        "evaluated_truncated": int(said.truncated.sum()),
    }
    figures |= judged.counts | ({metrics.EVALUATED_UNSCORED: unscored} if unscored else {})
    evaluation = {
        "score": columns.pack(right),
        "text": texts(said.texts),
        "question": texts([entry["question"] for entry in entries]),
    }
    if said.turns is not None:
        evaluation["turns"] = texts([json.dumps(each) for each in said.turns])
    return Output("evaluation", evaluation, figures, note=judged.note or said.note)


def evaluated(config: Mapping[str, Any], data: Callable[[str], Data], wanted: range) -> list[Entry]:
    """The entries that an evaluation of this config asks, by their places in it; fewer where it has no more."""
    name, _, held_out = str(config["data"]).partition(".")
    source = data(name)
    found = [source.held_out(index) if held_out else source.training(index) for index in wanted]
    return [entry for entry in found if entry is not None]
