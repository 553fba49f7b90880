"""A partition of two prompts, two completions each, as operators are given it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dflow_protocols.pipeline import Pipeline, Stage
from dflowd.data import columns
from dflowd.data.order import DataSet
from dflowd.jobs.limits import Limits
from dflowd.operators.partition import Columns, Partition
from dflowd.shards.layout import ragged, texts
from dflowd.workers.pool import Pool
from tests.support.partition import first_partition

RIGHT = (1.0, 0.0, 1.0, 0.0)
SHORT = (0.0, 1.0, 1.0, 0.0)
ROLL = {"data": "words", "prompts": 2, "group": 2, "max_tokens": 2}


def pipeline(*between: Stage, **adv: Any) -> Pipeline:
    """Two rewards; `adv`: the advantage's config."""
    return Pipeline(
        name="mine",
        steps=1,
        models={"policy": {"path": "model/"}, "base": {"path": "base/"}},
        data={"words": {"jsonl": "words.jsonl"}},
        stages=[
            Stage("roll", "generate", "policy", config=ROLL),
            Stage("right", "reward"),
            Stage("short", "reward", config={"function": "judge.py:short"}),
            *between,
            Stage("adv", "advantage", config=adv),
            Stage("learn", "train", "policy", config={"leaves": 1, "optimizer": {"adamw": {"lr": 1e-3}}}),
        ],
    )


def known(right: Sequence[float] = RIGHT, short: Sequence[float] = SHORT) -> dict[str, Columns]:
    """What was made of two prompts with two completions each, two tokens long."""
    tokens = columns.pack(np.arange(8, dtype=np.int32), np.full(4, 2))
    rollout = {
        "position": columns.pack(np.array([0, 1], np.int64)),
        "prompt": ragged("i32", [[1], [2]]),
        "tokens": tokens,
        "logprobs": columns.pack(np.full(8, -0.5, np.float32), np.full(4, 2)),
        "text": texts(["a", "b", "c", "d"]),
        "truncated": columns.pack(np.array([0, 0, 0, 1], np.uint8)),
    }
    scored = {"logprob": columns.pack(-np.arange(8, dtype=np.float32), np.full(4, 2))}
    given = {"right": right, "short": short}
    rewards = {
        f"{stage}.reward": {"reward": columns.pack(np.array(values, np.float32))} for stage, values in given.items()
    }
    return {"roll.rollout": rollout, "ref.logprob": scored, **rewards}


def partition(folder: Path, spec: Pipeline, stage: str, inputs: dict[str, Columns]) -> Partition:
    (folder / "words.jsonl").write_text('{"prompt": "p", "answer": "a"}\n')
    data = DataSet("words", spec.data["words"], folder, 0)
    return first_partition(spec, folder, stage, 2, data, known=inputs, pool=Pool(folder, Limits()))
