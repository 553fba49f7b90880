"""dflow samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options import DEFAULT_FOLDER, AsJson, Folder, Run, To


def samples(
    run: Run,
    limit: Annotated[int, typer.Option("--limit", min=1, help="The newest N.")] = 16,
    folder: Folder = DEFAULT_FOLDER,
    to: To = "",
    as_json: AsJson = False,
) -> None:
    """Show some prompts, what the policy answered, and the reward.

    Example: dflow samples 3f9c --limit 8
    """
    from ..output import note_missing, print_json, print_table
    from ..results import look_back

    with look_back(Path(folder).absolute(), to, run) as source:
        answer = source.call("samples", {"run": run, "limit": limit})
    if as_json:
        print_json(answer)
        return
    columns = ("step", "prompt", "completion", "reward")
    print_table(columns, [[sample.get(column) for column in columns] for sample in answer["samples"]])
    note_missing(answer)
