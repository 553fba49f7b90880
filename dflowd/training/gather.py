"""What a training stage is given: its objective, and a leaf's samples out of the shards of its partitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dflow_protocols.metrics import Whitening
from dflow_protocols.pipeline import Pipeline, Stage
from dflow_protocols.pipeline.grammar.algorithms import divisor_of, loss_named
from dflow_protocols.pipeline.grammar.columns import COLUMNS
from dflow_protocols.pipeline.grammar.signatures import Lesson, loss_of
from dflow_protocols.pipeline.schedule import Schedule
from dflow_protocols.work import LeafGroups
from dflowd.data import columns
from dflowd.shards.layout import Column

from .leaf import LeafData, Objective
from .objective.own_loss import own_loss

Inputs = Mapping[tuple[int, str], Mapping[str, Column]]
"""(partition, "stage.output") -> columns"""


def objective_of(pipeline: Pipeline, stage: Stage, own: tuple[str, Callable[..., Any]] | None = None) -> Objective:
    """By the stage's settings, at the temperature that its samples were drawn with. `own`: the name and the function of
    a loss of the user's own."""
    lesson = _lesson(stage)
    kind, settings = loss_of(lesson, stage.config)
    loss = loss_named(kind)
    made = pipeline.stage(_source(stage, lesson.samples).partition(".")[0]).config
    return Objective(
        kind,
        settings,
        divisor_of(kind, settings),
        int(stage.config["micro_batch_tokens"]),
        float(made.get("temperature", 1.0)),
        int(made.get("max_tokens", 1)),
        stage.config.get("correction", {}),
        None if own is None else own_loss(own[1], own[0], stage.id),
        loss is not None and loss.is_of_pairs,
    )


def _lesson(stage: Stage) -> Lesson:
    lesson = stage.operator.trains
    assert lesson is not None, f"stage `{stage.id}` trains nothing"
    return lesson


def _source(stage: Stage, output: str) -> str:
    """The "stage.output" that a stage reads, or that it makes itself."""
    return next((name for name in stage.reads if name.endswith(f".{output}")), f"{stage.id}.{output}")


def leaf_data(
    pipeline: Pipeline,
    stage: Stage,
    leaf: LeafGroups,
    inputs: Inputs,
    whitening: Whitening | None = None,
    version: int = 0,
) -> LeafData:
    """The leaf's groups in its order, with each column that the stage's inputs have. `whitening`: of advantages;
    `version`: the number of the one that is trained."""
    data = LeafData()
    samples_from = _source(stage, _lesson(stage).samples)
    for partition, first, end in leaf.pieces:
        batch = inputs[partition, samples_from]
        prompts, said = columns.rows(batch["prompt"]), columns.rows(batch["tokens"])
        width = len(said) // len(prompts)
        samples = slice(first * width, end * width)
        data.owners += [len(data.prompts) + at // width for at in range((end - first) * width)]
        data.prompts += prompts[first:end]
        data.completions += said[samples]
        if (own := columns.own_tokens(batch)) is not None:
            data.give("mask", own[samples])
        if "version" in batch:
            said_by = columns.rows(batch["version"])[samples]
            data.give("version_gap", [_steps_behind(pipeline.schedule, version, row) for row in said_by])
        if "logprobs" in batch:
            data.give("sampled_logprob", columns.rows(batch["logprobs"])[samples])
        for read in stage.reads:
            name, output = _column(pipeline, stage, read), read.partition(".")[2]
            if name in COLUMNS or output in inputs[partition, read]:  # of one's own, for a loss of one's own
                data.give(name, _rows(inputs[partition, read][output])[samples])
    found = _trained(data, _lesson(stage).groups)
    if whitening is not None:
        found.columns["advantage"] = [_whitened(row, whitening) for row in found.columns["advantage"]]
    return found


def _steps_behind(schedule: Schedule, version: int, row: Any) -> Any:
    """By token, how many steps before that of the version `version` the one began that said it, int64."""
    numbers, at = np.unique(row, return_inverse=True)
    steps = np.array([schedule.place(int(number)).step for number in numbers], np.int64)
    return schedule.place(version).step - steps[at]


def _whitened(row: Any, whitening: Whitening) -> Any:
    """A completion's advantages, or its one, as float32."""
    mean, deviation = whitening
    return ((np.asarray(row, np.float64) - mean) / deviation).astype(np.float32)


def _trained(data: LeafData, groups: str) -> LeafData:
    """Without the completions that have no number in the column `groups`, which says what is trained on."""
    left_out = np.array([bool(np.isnan(row).any()) for row in data.columns.get(groups, ())], np.bool_)
    if not left_out.any():
        return data
    kept = np.flatnonzero(~left_out).tolist()
    given = {name: [rows[at] for at in kept] for name, rows in data.columns.items()}
    return LeafData(data.prompts, [data.owners[at] for at in kept], [data.completions[at] for at in kept], given)


def _column(pipeline: Pipeline, stage: Stage, read: str) -> str:
    """The column that an output is to a training. Log-probabilities of the trained model itself are its own view of
    the policy that sampled; those of another one are the reference's."""
    source, _, output = read.partition(".")
    is_own = output == "logprob" and pipeline.stage(source).model == stage.model
    return "old_logprob" if is_own else output


def _rows(column: Column) -> Any:
    """Of each completion its numbers, or its one number."""
    return columns.values(column) if column.lengths is None else columns.rows(column)
