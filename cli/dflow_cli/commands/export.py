"""dflow export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..folder import DEFAULT_FOLDER
from ..options import AsJson, Folder, Run, To


def export(
    run: Run,
    place: Annotated[Path, typer.Argument(metavar="OUT", help="Made whole or not at all; must not be there yet.")],
    step: Annotated[int | None, typer.Option("--step", min=0, help="After this step; without it, the newest.")] = None,
    folder: Folder = DEFAULT_FOLDER,
    to: To = "",
    as_json: AsJson = False,
) -> None:
    """Bring a run's checkpoint here, as a folder that transformers opens, from whichever daemon has it.

    Example: dflow export 3f9c my_model
    """
    from ..output import amount, note, note_missing, print_json
    from ..own_run.exporting import export_checkpoint
    from ..own_run.results import look_back

    with look_back(Path(folder).absolute(), to, run) as source:
        brought = export_checkpoint(source, run, step, place)
    if as_json:
        print_json({"path": str(place), **brought})
        return
    print(place)
    note(f"step {brought['step']}, {len(brought['files'])} files, {amount(brought['bytes'])}, from {brought['node']}")
    if (place / "config.json").exists():  # pretended weights have none
        note(f"in Python: transformers.AutoModelForCausalLM.from_pretrained({str(place)!r})")
    note_missing(brought)
