"""From a spec file to a run: read and check the spec, then hand it to the mesh."""

from __future__ import annotations

import uuid
from pathlib import Path

from .client import Client
from .errors import Problem
from .specfile import Loaded, SpecFileError, load


def read_spec(path: Path, overlays: list[Path] | None, sets: list[str] | None) -> Loaded:
    """The checked pipeline. Raises Problem for the first mistake; the others are told by `dflow validate`."""
    try:
        return load(path, overlays or [], sets or [])
    except SpecFileError as error:
        first = error.problems[0]
        raise Problem(first.what, where=first.where, hint=first.hint) from error


def submit(client: Client, loaded: Loaded) -> str:
    """The id of the new run, once it lies on two daemons' disks (on one where there is one).

    The nonce makes a repeated request the same run, so the client may ask another daemon when the first is gone.
    """
    params = {
        "spec": loaded.pipeline.canonical(),
        "base": str(loaded.base),
        "name": loaded.pipeline.name,
        "nonce": uuid.uuid4().hex,
    }
    return str(client.call("submit", params, deadline_s=20.0)["run"])
