"""dflow tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..folder import DEFAULT_FOLDER
from ..options import AsJson, Folder, Run, To


def tasks(
    run: Run,
    step: Annotated[int | None, typer.Option("--step", min=0, metavar="STEP", help="Of this step only.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="The newest N.")] = 10_000,
    folder: Folder = DEFAULT_FOLDER,
    to: To = "",
    as_json: AsJson = False,
) -> None:
    """List which node ran which task of a run, and when. Where rollouts are ahead, also from which version they are.

    Example: dflow tasks 3f9c --step 12
    """
    from ..kept.asking import ask
    from ..output import note_missing, print_json, print_table

    params: dict[str, Any] = {"run": run, "limit": limit}
    if step is not None:
        params["step"] = step
    with ask(Path(folder).absolute(), to) as source:
        answer = source.call("tasks", params)
    if as_json:
        print_json(answer)
        return
    updates = ("update",) if any("update" in task for task in answer["tasks"]) else ()
    ahead = any(task.get("samples_from") not in (None, task["step"]) for task in answer["tasks"])
    sources = ("samples_from",) if ahead else ()
    columns = ("id", "stage", "step", *updates, *sources, "node", "state", "origin", "seconds")
    print_table(columns, [[task.get(column) for column in columns] for task in answer["tasks"]])
    note_missing(answer)
