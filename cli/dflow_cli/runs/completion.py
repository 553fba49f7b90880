"""Completion of RUN and TASK in a shell: the runs and tasks that the mesh in DIR knows, and the runs it left there.

The shell waits for every Tab, so a mesh that does not answer within half a second gives no names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..folder import unsaid_folder

PATIENCE_S = 0.5
TASKS = 1_000  # the newest of a run that are proposed
SHORTEST_PREFIX = 4  # digits of a run's id that daemons take for it


def complete_run(ctx: Any, incomplete: str) -> Iterator[tuple[str, str]]:
    """(id, what it is) of each run whose id begins so. `ctx`: the shell's half-typed command."""
    from ..errors import CliError
    from ..mesh.statefiles import kept_runs

    folder = _folder(ctx)
    names: dict[str, str] = {place.parent.name: "ended" for place in folder.glob("runs/*/outcome.json")}
    names |= {kept.run: f"{kept.state}, step {kept.step}" for kept in kept_runs(folder)}
    with contextlib.suppress(CliError, OSError):
        names |= {row["run"]: _about(row) for row in _known(folder, ctx)}
    yield from sorted((run, about) for run, about in names.items() if run.startswith(incomplete))


def complete_task(ctx: Any, incomplete: str) -> Iterator[tuple[str, str]]:
    """Runs, and (task, where it ran) of the run before a slash, else of the only active run or of the newest."""
    from ..errors import CliError

    found: list[tuple[str, str]] = []
    with contextlib.suppress(CliError, OSError):
        folder = _folder(ctx)
        rows = _known(folder, ctx)
        found += [(row["run"], _about(row)) for row in rows]
        first = incomplete.partition("/")[0]
        named = [row for row in rows if len(first) >= SHORTEST_PREFIX and row["run"].startswith(first)]
        meant = named or [row for row in rows if row["state"] == "active"] or rows[-1:]
        if len(meant) == 1:
            start = f"{first}/" if named else ""
            asked = {"run": meant[0]["run"], "limit": TASKS}
            tasks = _call(folder, ctx, "tasks", asked).get("tasks", [])
            found += [(f"{start}{task['id']}", f"{task['state']} on {task['node']}") for task in tasks]
    yield from sorted((name, about) for name, about in dict(found).items() if name.startswith(incomplete))


def _folder(ctx: Any) -> Path:
    return Path(ctx.params.get("folder") or unsaid_folder()).absolute()


def _about(row: dict[str, Any]) -> str:
    from .outcome import read_state

    return f"{row['name']}, {read_state(row['state'])}, step {row['step']}"


def _known(folder: Path, ctx: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = _call(folder, ctx, "runs", {}).get("runs", [])
    return rows


def _call(folder: Path, ctx: Any, method: str, params: dict[str, Any]) -> dict[str, Any]:
    from ..mesh.localmesh import running
    from ..mesh.reach import reach

    to = ctx.params.get("to") or ""
    if not to and running(folder) is None:
        return {}
    with reach(folder, to) as client:
        return client.call(method, params, deadline_s=PATIENCE_S)
