"""An operator of the user's own: one number a completion for each of its outputs.

    def operator(rows: list[dict], **config) -> list[float] | dict[str, list[float]]

A row is a completion: `completion`, `answer`, `prompt`, `entry`, `group` (its number in the step), and each number that
the stage reads beside the rollout, by `stage.output`, and by `output` where that says which. Log-probabilities are
lists, one number a token. A stage with several outputs gives a dict of lists by output.
"""

from __future__ import annotations

from typing import Any

from dflow_protocols.pipeline.grammar.rows import row_names
from dflowd.data import columns
from dflowd.slots.doing import Doing

from ..workers.float32 import float32s_of
from ..workers.user_code import call_user, load_function
from .partition import Output, Partition, Rollout, read_rollout
from .reward import reward_metrics


def custom(partition: Partition) -> list[Output]:
    """One Output for each name that the stage writes, in its order."""
    stage = partition.stage
    rollout = read_rollout(partition)
    rows = _rows(partition, rollout)
    with partition.opaque(), partition.board.showing(Doing(stage.id, f"the import of {stage.op}", True)):
        function = load_function(stage.op, partition.base, partition.pipeline)
    said = call_user(partition.board, Doing(stage.id, stage.op, True), function, rows, **stage.config)
    partition.progress()
    named = said if isinstance(said, dict) else {stage.writes[0]: said}
    outputs = []
    for name in stage.writes:
        values = float32s_of(named.get(name), len(rows), f"{stage.op}: `{name}`", stage.id)
        metrics = reward_metrics(values) if name == "reward" else {}
        outputs.append(Output(name, {name: columns.pack(values)}, metrics, _groups(name, rollout)))
    return outputs


def _rows(partition: Partition, rollout: Rollout) -> list[dict[str, Any]]:
    rows = []
    for index, completion in enumerate(rollout.completions):
        entry = rollout.entries[index // rollout.width]
        rows.append(
            {
                "completion": completion,
                "answer": entry["answer"],
                "prompt": entry["question"],
                "entry": entry,
                "group": partition.first + index // rollout.width,
            }
        )
    for source, names in row_names(partition.stage.reads).items():
        column = partition.inputs[source].get(source.partition(".")[2])
        if column is None:  # a rollout, whose parts are there under names of their own
            continue
        values = columns.values(column) if column.lengths is None else columns.rows(column)
        for row, value in zip(rows, values, strict=True):
            row.update(dict.fromkeys(names, value.tolist()))
    return rows


def _groups(name: str, rollout: Rollout) -> tuple[tuple[int, int], ...]:
    if name != "advantage":
        return ()
    return tuple((int(total), rollout.width) for total in rollout.lengths.reshape(-1, rollout.width).sum(1))
