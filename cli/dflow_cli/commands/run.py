"""dflow run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..folder import DEFAULT_FOLDER
from ..options import AsJson, Folder, Overlays, Sets, Spec, To


def run(
    spec: Spec,
    overlays: Overlays = None,
    nodes: Annotated[
        int | None, typer.Option("--nodes", min=1, metavar="N", help="Daemons of the mesh it starts (3 without it).")
    ] = None,
    sets: Sets = None,
    folder: Folder = DEFAULT_FOLDER,
    to: To = "",
    discard: Annotated[bool, typer.Option("--discard", help="At Ctrl-C, keep nothing of the run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a pipeline to its end. On the mesh in DIR, or on one that lives as long as the run.

    Ctrl-C, SIGTERM or a closed terminal stop a run whose daemons stop with it: what it gave so far and a checkpoint of
    where it is are kept, and `dflow resume RUN` goes on from there, to the same weights. A second Ctrl-C ends at once,
    without that checkpoint. On a mesh that stays the run goes on without this command. A second run in DIR uses the
    daemons of the first, which stop once both have ended.

    Example: dflow run examples/spell_backward.yaml --nodes 3
    """
    from ..own_run.runner import run_to_end
    from ..submitting.submission import read_spec

    loaded = read_spec(spec, overlays, sets)
    code = run_to_end(loaded, Path(folder).absolute(), to, nodes, as_json, discard)
    raise typer.Exit(code)
