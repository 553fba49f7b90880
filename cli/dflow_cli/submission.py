"""From a spec file to a run: read and check the spec, then hand it to the mesh."""

from __future__ import annotations

import uuid
from pathlib import Path

from .client import Client
from .errors import Problem, explain
from .output import note
from .specfile import Loaded, SpecFileError, load


def read_spec(path: Path, overlays: list[Path] | None, sets: list[str] | None) -> Loaded:
    """The checked pipeline, its warnings told. Raises Problem for the first mistake, with the count of the others."""
    try:
        loaded = load(path, overlays or [], sets or [])
    except SpecFileError as error:
        first, *others = error.problems
        more = f"; {len(others)} more, told by `dflow validate {path}`" if others else ""
        raise Problem(first.what, where=first.where, hint=first.hint + more) from error
    tell_warnings(loaded)
    return loaded


def tell_warnings(loaded: Loaded) -> None:
    """On stderr: what scripts read on stdout is the same with and without them."""
    for warning in loaded.warnings:
        note(explain(Problem(warning.what, where=warning.where, hint=warning.hint), "warning"))


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
