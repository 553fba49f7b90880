"""An operator of the user's own: one number a completion for each of its outputs.

    def operator(rows: list[dict], **config) -> list[float] | dict[str, list[float]]

A row is a completion: `completion`, `answer`, `prompt`, `entry`, `group` (its number in the step), `tokens` (how many),
`truncated`, `step`, `messages` (what was put to the model), and each number that the stage reads beside the rollout,
by `stage.output`, and by `output` where that says which. Log-probabilities are lists, one number a token; a completion
without a score has None. A stage with several outputs gives a dict of lists by output. A None as `reward` or
`advantage` leaves the completion out of its group and of training.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dflow_protocols.pipeline.grammar.rows import row_names
from dflowd.data import columns
from dflowd.data.folder import check_files
from dflowd.jobs.failures import UserError
from dflowd.slots.doing import Doing
from dflowd.workers.outcome import Arguments, Due
from dflowd.workers.pool import Terms

from .advantage import trained_groups
from .partition import Output, Partition, Rollout, read_rollout
from .reward import reward_metrics

MAY_BE_NONE = ("reward", "advantage")  # the completion is left out of its group and of training


def custom(partition: Partition) -> list[Output]:
    """One Output for each name that the stage writes, in its order."""
    stage = partition.stage
    rollout = read_rollout(partition)
    rows = _rows(partition, rollout)
    due = Due(len(rows), tuple(stage.writes), tuple(name for name in stage.writes if name in MAY_BE_NONE))
    asked = Arguments((rows,), stage.config)
    try:
        with partition.board.showing(Doing(stage.id, f"it waited for `{stage.op}`")):
            (outcome,) = partition.workers().map(stage.op, [asked], due, Terms(), partition.progress)
    except UserError as error:
        raise UserError(str(error), stage.id) from error
    if outcome.error:
        raise UserError(outcome.error, stage.id)
    check_files(partition.pipeline, partition.base, stage.op)  # after the import: a file may be replaced at any moment
    partition.progress()
    outputs = []
    for name in stage.writes:
        given = [np.nan if value is None else value for value in outcome.value[name]]
        values = np.array(given, np.float32)
        metrics = reward_metrics(values) if name == "reward" else {}
        groups = trained_groups(rollout.lengths, values.reshape(-1, rollout.width)) if name == "advantage" else ()
        outputs.append(Output(name, {name: columns.pack(values)}, metrics, groups))
    return outputs


def _rows(partition: Partition, rollout: Rollout) -> list[dict[str, Any]]:
    rows = []
    conversations = [rollout.wording.conversation(entry) for entry in rollout.entries]
    for index, completion in enumerate(rollout.completions):
        entry = rollout.entries[index // rollout.width]
        rows.append(
            {
                "completion": completion,
                "answer": entry["answer"],
                "prompt": entry["question"],
                "entry": entry,
                "group": partition.first + index // rollout.width,
                "tokens": int(rollout.lengths[index]),
                "truncated": bool(rollout.truncated[index]),
                "step": partition.step,
                "messages": conversations[index // rollout.width],
            }
        )
    for source, names in row_names(partition.stage.reads).items():
        column = partition.inputs[source].get(source.partition(".")[2])
        if column is None:  # a rollout, whose parts are there under names of their own
            continue
        values = columns.values(column) if column.lengths is None else columns.rows(column)
        for row, value in zip(rows, values, strict=True):
            is_none = np.ndim(value) == 0 and np.isnan(value)
            row.update(dict.fromkeys(names, None if is_none else value.tolist()))
    return rows
