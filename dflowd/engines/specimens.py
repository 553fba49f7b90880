"""A few completions of a partition for people to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dflow_protocols.pipeline import Pipeline
from dflowd.data import columns
from dflowd.data.order import DataSet
from dflowd.operators.partition import Columns
from dflowd.shards.layout import read_texts

COUNT = 4  # groups, one completion of each

Specimen = dict[str, Any]


def specimens(pipeline: Pipeline, known: Mapping[str, Columns], data: Mapping[str, DataSet]) -> tuple[Specimen, ...]:
    """{prompt, completion, reward} of the first groups of a rollout or an evaluation; none of other chains.

    `known`: "stage.output" -> columns.
    """
    rewards = next((found["reward"] for name, found in known.items() if name.endswith(".reward")), None)
    for name, found in known.items():
        if name.endswith(".evaluation"):
            rows = zip(
                read_texts(found["question"]), read_texts(found["text"]), columns.values(found["score"]), strict=True
            )
            return tuple(_specimen(*row) for _, row in zip(range(COUNT), rows, strict=False))
        if name.endswith(".rollout"):
            config = pipeline.stage(name.partition(".")[0]).config
            said, width = read_texts(found["text"]), int(config["group"])
            scores = columns.values(rewards) if rewards is not None else None
            positions = columns.values(found["position"])[:COUNT].tolist()
            source = data[config["data"]]
            return tuple(
                _specimen(
                    source.training(position)["question"],
                    said[group * width],
                    None if scores is None else scores[group * width],
                )
                for group, position in enumerate(positions)
            )
    return ()


def _specimen(prompt: str, completion: str, reward: Any) -> Specimen:
    return {"prompt": prompt, "completion": completion, "reward": None if reward is None else float(reward)}
