"""dflow cancel."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..folder import DEFAULT_FOLDER, dir_option
from ..options import AsJson, Folder, Run, To


def cancel(
    run: Run,
    keep: Annotated[bool, typer.Option("--keep", help="Save where it is: `dflow resume` goes on from there.")] = False,
    folder: Folder = DEFAULT_FOLDER,
    to: To = "",
    as_json: AsJson = False,
) -> None:
    """Cancel a run everywhere: its tasks stop and its shards are freed. A finished run stays as it is.

    With --keep it is stopped instead: whoever holds its newest version saves that. One that waits in DIR to be resumed,
    where no daemon runs, is given up: its checkpoints are deleted, and what came home stays.

    Example: dflow cancel 3f9c
    """
    from ..mesh.reach import reach
    from ..output import note, print_json
    from ..own_run.given_up import give_up
    from ..runs.outcome import read_state

    place = Path(folder).absolute()
    answer = None if keep or to else give_up(place, run)
    if answer is None:
        with reach(place, to) as client:
            answer = client.call("stop" if keep else "cancel", {"run": run}, deadline_s=20.0)
    state = read_state(answer["state"])
    if as_json:
        print_json({"run": answer["run"], "state": state})
    else:
        print(f"{answer['run']} {state}")
        if state == "stopped":
            note(f"it goes on with: dflow resume {answer['run'][:8]}{dir_option(folder)}")
