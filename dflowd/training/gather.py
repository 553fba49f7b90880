"""What a training stage is given: its objective, and a leaf's samples out of the shards of its partitions."""

from __future__ import annotations

from collections.abc import Mapping

from dflow_protocols.pipeline import Pipeline, Stage
from dflow_protocols.work import LeafGroups
from dflowd.data import columns
from dflowd.shards.layout import Column

from .leaf import LeafData, Objective

Inputs = Mapping[tuple[int, str], Mapping[str, Column]]
"""(partition, "stage.output") -> columns"""


def objective_of(pipeline: Pipeline, stage: Stage) -> Objective:
    """By the stage's settings, at the temperature that its rollout was sampled with."""
    budget = int(stage.config["micro_batch_tokens"])
    if "loss" not in stage.config:
        return Objective("cross_entropy", budget)
    rollout = pipeline.stage(_read(stage, "rollout").partition(".")[0])
    loss = stage.config["loss"]
    low, high = loss["clip"]
    return Objective("rl", budget, float(rollout.config["temperature"]), (low, high), loss["mean"], loss["kl"])


def _read(stage: Stage, output: str) -> str:
    """The "stage.output" that a stage reads, or an empty text."""
    return next((name for name in stage.reads if name.endswith(f".{output}")), "")


def leaf_data(pipeline: Pipeline, stage: Stage, leaf: LeafGroups, inputs: Inputs) -> LeafData:
    """The leaf's groups in its order."""
    data = LeafData()
    for partition, first, end in leaf.pieces:
        batch = inputs[partition, _read(stage, "rollout") or f"{stage.id}.batch"]
        prompts, said = columns.rows(batch["prompt"]), columns.rows(batch["tokens"])
        width = len(said) // len(prompts)
        samples = slice(first * width, end * width)
        data.owners += [len(data.prompts) + at // width for at in range((end - first) * width)]
        data.prompts += prompts[first:end]
        data.completions += said[samples]
        if "loss" not in stage.config:
            continue
        found = inputs[partition, _read(stage, "advantage")]
        data.advantages += columns.values(found["advantage"])[samples].tolist()
        sampled = columns.rows(batch["logprobs"])[samples]
        for read in stage.reads:
            source, _, output = read.partition(".")
            if output != "logprob":
                continue
            rescored = columns.rows(inputs[partition, read]["logprob"])[samples]
            if pipeline.stage(source).model == stage.model:
                sampled = rescored  # the trainer's own view of the policy that sampled
            else:
                data.references += rescored
        data.logprobs += sampled
    return data
