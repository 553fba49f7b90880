"""Completion of RUN in a shell: the ids of runs that the mesh in DIR knows, and of those that it left there.

The shell waits for every Tab, so a mesh that does not answer within half a second gives no names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PATIENCE_S = 0.5


def complete_run(ctx: Any, incomplete: str) -> Iterator[tuple[str, str]]:
    """(id, what it is) of each run whose id begins so. `ctx`: the shell's half-typed command."""
    from ..errors import Problem
    from ..folder import DEFAULT_FOLDER

    folder = Path(ctx.params.get("folder") or DEFAULT_FOLDER).absolute()
    names: dict[str, str] = {place.parent.name: "ended" for place in folder.glob("runs/*/outcome.json")}
    with contextlib.suppress(Problem, OSError):
        names |= _known(folder, ctx.params.get("to") or "")
    yield from sorted((run, about) for run, about in names.items() if run.startswith(incomplete))


def _known(folder: Path, to: str) -> dict[str, str]:
    from ..mesh.localmesh import running
    from ..mesh.reach import reach
    from .outcome import read_state

    if not to and running(folder) is None:
        return {}
    with reach(folder, to) as client:
        runs = client.call("runs", deadline_s=PATIENCE_S)["runs"]
    return {row["run"]: f"{row['name']}, {read_state(row['state'])}, step {row['step']}" for row in runs}
