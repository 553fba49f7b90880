"""A stage's calls of a user's function, by its workers: what goes wrong there is told as the stage's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from dflow_protocols.pipeline.grammar.scoring import MisfitError, asked_of_group
from dflowd.data.folder import check_files
from dflowd.jobs.failures import UserError
from dflowd.slots.doing import Doing
from dflowd.workers.outcome import Arguments, Due, Outcome
from dflowd.workers.pool import Pool, Terms

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


def by_groups(partition: Partition, name: str, groups: Iterable[Mapping[str, Any]], due: Due) -> list[Any]:
    """What the function `name` gives of each group. `groups`: all that it may ask for by name; `due`: what it has to
    give. Raises UserError, and HostError where this host has another function."""
    config, tick = partition.stage.config, partition.progress
    args = dict(config["args"])

    def call(pool: Pool) -> list[Outcome]:
        names = asked_of_group(pool.signature(name, tick).parameters, args)
        calls = [Arguments((), {key: group[key] for key in names} | args) for group in groups]
        return pool.map(name, calls, due, Terms(float(config.get("timeout_s", 30.0))), tick)

    outcomes = by_workers(partition, name, call)
    failed = next((outcome.error for outcome in outcomes if outcome.error), None)
    if failed is not None:
        raise UserError(failed, partition.stage.id)
    return [outcome.value for outcome in outcomes]
