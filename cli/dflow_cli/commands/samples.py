"""dflow samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..folder import DEFAULT_FOLDER
from ..options import AsJson, Folder, Run, To


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
    from ..kept.asking import ask
    from ..output import note_missing, print_json, print_table

    with ask(Path(folder).absolute(), to) as source:
        answer = source.call("samples", {"run": run, "limit": limit})
    if as_json:
        print_json(answer)
        return
    stages = list(dict.fromkeys(stage for sample in answer["samples"] for stage in sample.get("rewards") or {}))
    columns = ("step", "prompt", "completion", "reward")
    rows = [
        [*map(sample.get, columns), *map((sample.get("rewards") or {}).get, stages)] for sample in answer["samples"]
    ]
    print_table([*columns, *stages], rows)
    note_missing(answer)
