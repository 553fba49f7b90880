"""From a spec file to a run: read and check the spec, then hand it to the mesh."""

from __future__ import annotations

import uuid
from pathlib import Path

from dflow_protocols.names import run_id

from ..errors import EXIT_NO_DAEMON, CliError, explain
from ..mesh.client import Client
from ..output import note
from ..runs.outcome import read_state
from ..spec.specfile import Loaded, SpecFileError, load
from .listing import files_of_pipeline
from .staging import as_params, stage


def read_spec(path: Path, overlays: list[Path] | None, sets: list[str] | None) -> Loaded:
    """The checked pipeline, its warnings told. Raises CliError for the first mistake, with the count of the others."""
    try:
        loaded = load(path, overlays or [], sets or [])
    except SpecFileError as error:
        first, *others = error.problems
        more = f"; {len(others)} more, told by `dflow validate {path}`" if others else ""
        raise CliError(first.what, where=first.where, hint=first.hint + more) from error
    tell_warnings(loaded)
    return loaded


def tell_warnings(loaded: Loaded) -> None:
    """On stderr: what scripts read on stdout is the same with and without them."""
    for warning in loaded.warnings:
        note(explain(CliError(warning.what, where=warning.where, hint=warning.hint), "warning"))


def submit(client: Client, loaded: Loaded) -> str:
    """The id of the new run, once it and its files lie on two daemons' disks (on one where there is one).

    The nonce makes a repeated request the same run, so the client may ask another daemon when the first is gone. Raises
    Problem; where no daemon answered it names the run, which one that was asked may have taken.
    """
    files = files_of_pipeline(loaded.pipeline, loaded.base)
    stage(client, loaded.base, files)
    nonce = uuid.uuid4().hex
    params = {
        "spec": loaded.pipeline.canonical(),
        "base": str(loaded.base),
        "name": loaded.pipeline.name,
        "nonce": nonce,
        "files": as_params(files),
    }
    try:
        return str(client.call("submit", params, deadline_s=20.0)["run"])
    except CliError as problem:
        if problem.exit_code != EXIT_NO_DAEMON:
            raise
        run = run_id(loaded.pipeline.text_id, client.id, nonce)
        hint = f"one may have taken it all the same, as run {run}: see `dflow ps`; `dflow cancel {run[:8]}` ends it"
        raise CliError(problem.what, hint=f"{problem.hint}; {hint}", exit_code=problem.exit_code) from problem


def twins(client: Client, loaded: Loaded, run: str) -> list[str]:
    """Other active runs of the very same pipeline, which come to the same weights. Raises CliError."""
    rows = client.call("runs")["runs"]
    alike = [row["run"] for row in rows if read_state(row["state"]) == "active" and row["name"] == loaded.pipeline.name]
    spec = loaded.pipeline.canonical()
    return [other for other in alike if other != run and client.call("run", {"run": other})["spec"] == spec]
