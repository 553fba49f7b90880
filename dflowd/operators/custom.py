"""An operator of the user's own: numbers of each completion, for each of its outputs.

    def operator(rows: list[dict], **config) -> list[float] | dict[str, list[float]]

A row is a completion: `completion`, `answer`, `prompt`, `entry`, `group` (its number in the step), `tokens` (how many),
`truncated`, `finished`, `step`, `messages` (what was put to the model), `turns` (what was said then), `token_ids`,
`logprobs` and `turn` (of each token; -1: an environment said it), and what the stage reads beside the rollout, by
`stage.output`, and by `output` where that says which. What has a number for each token is a list; a completion without
a score has None. A stage with several outputs gives a dict of lists by output. An output of `per_token` has a list of
numbers in each number's place, one a token. A None as `reward` or `advantage` leaves the completion out of its group
and of training.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from dflow_protocols.pipeline.grammar.rows import row_names
from dflow_protocols.work import Groups
from dflowd.data import columns
from dflowd.jobs.failures import UserError
from dflowd.shards.layout import Column, ragged
from dflowd.workers.outcome import Arguments, Due
from dflowd.workers.pool import Terms

from .advantage import trained_groups
from .calls import by_workers
from .partition import Output, Partition, Rollout, read_rollout
from .reward import reward_metrics

MAY_BE_NONE = ("reward", "advantage")  # the completion is left out of its group and of training


def custom(partition: Partition) -> list[Output]:
    """One Output for each name that the stage writes, in its order."""
    stage = partition.stage
    rollout = read_rollout(partition)
    rows = _rows(partition, rollout)
    blank = tuple(name for name in stage.writes if name in MAY_BE_NONE)
    due = Due(len(rows), tuple(stage.writes), blank, tuple(stage.per_token), tuple(rollout.lengths.tolist()))
    asked = Arguments((rows,), stage.config)
    (outcome,) = by_workers(
        partition, stage.op, lambda pool: pool.map(stage.op, [asked], due, Terms(), partition.progress)
    )
    if outcome.error:
        raise UserError(outcome.error, stage.id)
    partition.progress()
    outputs = [_output(name, outcome.value[name], name in stage.per_token, rollout) for name in stage.writes]
    return [replace(outputs[0], metrics={**outputs[0].metrics, **outcome.counts}), *outputs[1:]]


def _output(name: str, given: list[Any], is_per_token: bool, rollout: Rollout) -> Output:
    """`given`: of each completion its number, or a list of them; None in the place of either."""
    if is_per_token:
        said = zip(given, rollout.lengths.tolist(), strict=True)
        column = ragged("f32", ([np.nan] * length if row is None else row for row, length in said))
    else:
        column = columns.pack(np.array([np.nan if value is None else value for value in given], np.float32))
    metrics = reward_metrics(columns.values(column)) if name == "reward" else {}
    groups: Groups = ()
    if name == "advantage":
        trained = ~columns.without_number(column).reshape(-1, rollout.width)
        groups = trained_groups(rollout.spoken, trained)
    return Output(name, {name: column}, metrics, groups)


def _rows(partition: Partition, rollout: Rollout) -> list[dict[str, Any]]:
    rows = []
    spoken = rollout.spoken.tolist()
    for index, completion in enumerate(rollout.completions):
        entry = rollout.entries[index // rollout.width]
        rows.append(
            {
                "completion": completion,
                "answer": entry["answer"],
                "prompt": entry["question"],
                "entry": entry,
                "group": partition.first + index // rollout.width,
                "tokens": spoken[index],
                "truncated": bool(rollout.truncated[index]),
                "finished": not rollout.truncated[index],
                "step": partition.step,
                "messages": rollout.messages[index // rollout.width],
                "turns": rollout.said_then(index),
                "token_ids": rollout.tokens[index].tolist(),
                "logprobs": rollout.logprobs[index].tolist(),
                "turn": [0] * len(rollout.tokens[index]) if rollout.turn is None else rollout.turn[index].tolist(),
            }
        )
    for source, names in row_names(partition.stage.reads).items():
        column = partition.inputs[source].get(source.partition(".")[2])
        if column is None:  # a rollout, whose parts are there under names of their own
            continue
        for row, value in zip(rows, _values(column), strict=True):
            row.update(dict.fromkeys(names, value))
    return rows


def _values(column: Column) -> list[Any]:
    """Of each completion its number, or the list of its numbers; None where it has none."""
    values = columns.values(column) if column.lengths is None else columns.rows(column)
    missing = columns.without_number(column)
    return [None if is_missing else value.tolist() for value, is_missing in zip(values, missing, strict=True)]
