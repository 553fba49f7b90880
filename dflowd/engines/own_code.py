"""Functions of the user's own that an engine calls itself: those that run beside autograd."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from dflow_protocols.pipeline import Stage
from dflowd.data.folder import check_files
from dflowd.jobs.failures import UserError
from dflowd.jobs.job import Job
from dflowd.workers.user_code import call_user, load_function


def own_loss_of(job: Job, stage: Stage) -> tuple[str, Callable[..., Any]] | None:
    """The name and the function of a loss of the user's own; None where the stage's is none. What it raises comes out
    as UserError. Raises UserError where it cannot be loaded, and HostError where this host has another."""
    name = str(stage.config.get("loss", {}).get("kind", ""))
    if ":" not in name:
        return None
    try:
        function = load_function(name, job.code)
    except UserError as error:
        raise UserError(str(error), stage.id) from error
    check_files(job.pipeline, job.code, name)  # after the import: a file may be replaced at any moment
    return name, partial(call_user, function)
