"""A run that waits in DIR to be resumed, given up where no daemon runs that could be told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import CliError
from ..folder import dir_option
from ..mesh import statefiles
from ..mesh.localmesh import settled
from ..mesh.meshfiles import read_mesh
from ..output import amount, note


def give_up(folder: Path, run: str) -> dict[str, Any] | None:
    """Delete what daemons of a `dflow run` kept of it; {run, state}. None where that is for a daemon to do, or there is
    no such run. Raises CliError."""
    mesh = read_mesh(folder)
    if mesh is None or settled(folder) is not None:
        return None
    found = statefiles.find_kept(folder, run) if len(run) >= statefiles.SHORTEST_PREFIX else []
    if len(found) != 1:
        return None
    (kept,) = found
    if mesh.keeps_state:
        hint = f"`dflow up{dir_option(folder)}` starts them; then cancel it"
        raise CliError(f"no daemon runs in {folder} that could be told to cancel run {kept.run[:8]}", hint=hint)
    if kept.state == "done":
        return {"run": kept.run, "state": kept.state}
    nbytes = kept.nbytes
    statefiles.forget_run(folder, kept.run)
    statefiles.forget_what_is_home(folder)
    note(f"its checkpoints are deleted ({amount(nbytes)})")
    return {"run": kept.run, "state": "cancelled"}
