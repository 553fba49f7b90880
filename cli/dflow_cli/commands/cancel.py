"""dflow cancel."""

from __future__ import annotations

from pathlib import Path

from ..folder import DEFAULT_FOLDER
from ..options import AsJson, Folder, Run, To


def cancel(run: Run, folder: Folder = DEFAULT_FOLDER, to: To = "", as_json: AsJson = False) -> None:
    """Cancel a run everywhere: its tasks stop and its shards are freed. A finished run stays as it is.

    Example: dflow cancel 3f9c
    """
    from ..mesh.reach import reach
    from ..output import print_json
    from ..runs.outcome import read_state

    with reach(Path(folder).absolute(), to) as client:
        answer = client.call("cancel", {"run": run}, deadline_s=20.0)
    state = read_state(answer["state"])
    if as_json:
        print_json({"run": answer["run"], "state": state})
    else:
        print(f"{answer['run']} {state}")
