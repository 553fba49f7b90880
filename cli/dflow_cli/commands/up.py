"""dflow up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..folder import DEFAULT_FOLDER, dir_option
from ..options import AsJson, Folder

if TYPE_CHECKING:
    from ..mesh.meshfiles import LocalNode


def up(
    nodes: Annotated[int, typer.Option("--nodes", min=1, metavar="N", help="How many daemons.")] = 3,
    add: Annotated[int, typer.Option("--add", min=0, metavar="N", help="Add this many to the mesh that is up.")] = 0,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Start a mesh on this machine that stays until `dflow down`.

    Where daemons ran before they go on from what they left, and so do their active runs: after `dflow down`, a kill
    or a power cut, on fewer or more daemons too.

    Example: dflow up --nodes 3 --dir /tmp/mesh
    """
    from ..kept.left_out import left_out, told
    from ..mesh import localmesh
    from ..output import note, print_json, print_table
    from ..runs.outcome import goes_on

    place = Path(folder).absolute()
    started = localmesh.add(place, add) if add else localmesh.start(place, nodes, for_one_run=False)
    out = [] if add else left_out(place, [node.name for node in started])
    if as_json:
        runs = [] if add else _going_on(place)
        going = [{"run": run["run"], "name": run["name"], "told": goes_on(run)} for run in runs]
        print_json({"nodes": [_row(node) for node in started], "runs": going, "left_out": out})
        return
    print_table(("name", "pid", "control", "bulk"), [(n.name, n.pid, n.control, n.bulk) for n in started])
    for line in told(place, out):
        note(line)
    for run in () if add else _going_on(place):
        watch = f"dflow watch {run['run'][:8]}{dir_option(folder)}"
        note(f"run {run['run'][:8]} ({run['name']}) {goes_on(run)}; watch it with: {watch}")
    note(f"stop it with: dflow down{dir_option(folder)}")


def _going_on(place: Path) -> list[dict[str, Any]]:
    """Runs that were active when the daemons stopped. The mesh is up, whatever becomes of this question."""
    from ..errors import CliError
    from ..mesh.reach import reach
    from ..output import note

    try:
        with reach(place, "") as client:
            return [run for run in client.call("runs")["runs"] if run["state"] == "active"]
    except CliError as problem:
        note(f"which runs go on is not known: {problem.what}")
        return []


def _row(node: LocalNode) -> dict[str, object]:
    return {
        "name": node.name,
        "id": node.id,
        "pid": node.pid,
        "control": node.control,
        "bulk": node.bulk,
        "config": node.config,
        "key": node.key,
    }
