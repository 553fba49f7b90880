"""A stage's calls of a user's function, by its workers: what goes wrong there is told as the stage's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from dflow_protocols.pipeline.grammar.scoring import MisfitError
from dflowd.data.folder import check_files
from dflowd.jobs.failures import UserError
from dflowd.slots.doing import Doing
from dflowd.workers.pool import Pool

from .partition import Partition

Came = TypeVar("Came")


def by_workers(partition: Partition, name: str, call: Callable[[Pool], Came]) -> Came:
    """What comes of `call`, which has workers call the function `name`. Raises UserError, and HostError where this host
    has another function."""
    stage = partition.stage
    try:
        with partition.board.showing(Doing(stage.id, f"it waited for `{name}`")):
            came = call(partition.workers())
    except MisfitError as error:
        raise UserError(f"{name} {error}", stage.id) from error
    except UserError as error:
        raise UserError(str(error), stage.id) from error
    check_files(partition.pipeline, partition.code, name)  # after the import: a file may be replaced at any moment
    return came
