"""dflow resume."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..folder import DEFAULT_FOLDER, dir_option
from ..options import AsJson, Folder, Run, To


def resume(
    run: Run,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Begin again at step 0: all its checkpoints are removed.")
    ] = False,
    folder: Folder = DEFAULT_FOLDER,
    to: To = "",
    as_json: AsJson = False,
) -> None:
    """Go on with a run that was stopped, failed or is paused. From the best version there is.

    Where no daemon runs in DIR those of the run are started, and stopped again at its end, as by `dflow run`: it is
    shown meanwhile, its results come home, and Ctrl-C stops it again. A run that has finished or was cancelled stays
    as it is.

    Example: dflow resume 3f9c
    """
    from ..mesh.localmesh import settled
    from ..mesh.reach import reach
    from ..mesh.statefiles import is_left
    from ..output import note, print_json
    from ..own_run.runner import resume as let_go_on
    from ..own_run.runner import resume_to_end

    place = Path(folder).absolute()
    up = None if to else settled(place)
    if not to and (up.is_of_run if up is not None else is_left(place)):
        raise typer.Exit(resume_to_end(run, place, from_start, as_json))
    with reach(place, to) as client:
        going_on = let_go_on(client, run, from_start)
    if as_json:
        print_json({"run": going_on, "state": "active"})
        return
    print(f"{going_on} active")
    note(f"watch it with: dflow watch {going_on[:8]}{dir_option(folder)}")
