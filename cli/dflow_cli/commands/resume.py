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
    """Let a run that failed, or is paused, go on from the best version there is.

    One that has finished or was cancelled stays as it is.

    Example: dflow resume 3f9c
    """
    from ..mesh.reach import reach
    from ..output import note, print_json
    from ..runs.outcome import goes_on, read_state

    with reach(Path(folder).absolute(), to) as client:
        answer = client.call("resume", {"run": run, "from_start": from_start}, deadline_s=20.0)
        rows = [row for row in client.call("runs")["runs"] if row["run"] == answer["run"]]
    state = read_state(answer["state"])
    if as_json:
        print_json({"run": answer["run"], "state": state})
        return
    print(f"{answer['run']} {state}")
    for row in rows if state == "active" else []:
        note(f"it {goes_on(row)}")
    note(f"watch it with: dflow watch {answer['run'][:8]}{dir_option(folder)}")
