"""What people read of a partition: beside what the model said, what would have been right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from dflow_protocols.pipeline import Pipeline, Stage
from dflowd.data import columns
from dflowd.data.order import DataSet
from dflowd.engines.samples import samples_of
from dflowd.shards.layout import texts

ADAMW = {"adamw": {"lr": 1e-3}}


def pipeline() -> Pipeline:
    """One training and one evaluation of the same data."""
    roll = {"data": "sums", "prompts": 2, "group": 2, "partitions": 1, "max_tokens": 2}
    return Pipeline(
        name="mine",
        steps=1,
        models={"policy": {"path": "model/"}},
        data={"sums": {"jsonl": "sums.jsonl"}},
        stages=[
            Stage("roll", "generate", "policy", config=roll),
            Stage("score", "reward"),
            Stage("adv", "advantage"),
            Stage("learn", "train", "policy", config={"leaves": 1, "optimizer": ADAMW}),
            Stage("check", "evaluate", "policy", config={"data": "sums", "count": 2}),
        ],
    )


def test_a_sample_shows_the_right_answer_beside_what_was_said(tmp_path: Path) -> None:
    """A reward of 0 alone does not tell a wrong answer from a reward that judges wrongly."""
    lines = "".join(f'{{"prompt": "{number} + 1", "answer": "{number + 1}"}}\n' for number in range(9))
    (tmp_path / "sums.jsonl").write_text(lines)
    spec = pipeline()
    data = DataSet("sums", spec.data["sums"], tmp_path, 0)
    rollout = {"text": texts(["a", "b", "c", "d"]), "position": columns.pack(np.array([4, 5], np.int64))}
    rewards = {"reward": columns.pack(np.array([0, 1, 1, 0], np.float32))}
    trained = samples_of(spec, {"roll.rollout": rollout, "score.reward": rewards}, lambda name: data)
    evaluation = {"text": texts(["e", "f"]), "score": columns.pack(np.array([1, 0], np.float32))}
    talk = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]
    (told, _) = samples_of(
        spec, {"roll.rollout": rollout | {"turns": texts([json.dumps(talk)] * 4)}}, lambda name: data
    )
    assert (told["turns"], told["completion"]) == (talk, "a")
    asked = samples_of(spec, {"check.evaluation": evaluation}, lambda name: data)
    assert [(each["completion"], each["reward"]) for each in trained] == [("a", 0.0), ("c", 1.0)]
    assert [(each["completion"], each["reward"]) for each in asked] == [("e", 1.0), ("f", 0.0)]
    for each in (*trained, *asked):
        assert int(each["answer"]) == int(each["prompt"].split()[0]) + 1
