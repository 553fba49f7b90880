"""What a run's shards are, for people: of which step, and of what kind. Read from the books; changes nothing."""

from __future__ import annotations

from ..names import ShardId
from .run_state import RunState


def kinds(state: RunState) -> dict[ShardId, tuple[int, str]]:
    """(step, kind) of every shard that this node's books name.

    Kinds: `params:MODEL` and `optimizer:STAGE` of the version after so many steps; `STAGE.OUTPUT` of a partition;
    `STAGE.gradient` of a block of leaves; `STAGE.slice` of an update. One content may be of several kinds (a state
    that a step left as it was): the latest counts.
    """
    found: dict[ShardId, tuple[int, str]] = {}
    for number, step in sorted(state.steps.items()):
        for record in step.all_records():
            for output, ref in record.outputs:
                found[ref.id] = (number, f"{record.task.stage}.{output}")
    for header in state.versions.held.values():
        for name, ref in header.state:
            found[ref.id] = (header.step, name)
    return found
