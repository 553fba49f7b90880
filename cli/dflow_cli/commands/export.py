"""dflow export."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..folder import DEFAULT_FOLDER
from ..options import AsJson, Folder, Run, To


class Dtype(StrEnum):
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def export(
    run: Run,
    place: Annotated[Path, typer.Argument(metavar="OUT", help="Made whole or not at all; must not be there yet.")],
    step: Annotated[
        int | None, typer.Option("--step", min=0, metavar="STEP", help="After this step; without it, the newest.")
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Adapters come merged with their base: a whole model.")
    ] = False,
    dtype: Annotated[Dtype, typer.Option("--dtype", help="Of the weights: as they were trained, or rounded.")] = (
        Dtype.FLOAT32
    ),
    folder: Folder = DEFAULT_FOLDER,
    to: To = "",
    as_json: AsJson = False,
) -> None:
    """Bring a run's checkpoint here, for transformers to open. From whichever daemon has it.

    Adapters (`models.NAME.lora`) come as a folder that peft opens, or with --merge as the whole model.

    Example: dflow export 3f9c my_model --dtype bfloat16
    """
    from ..kept.asking import ask
    from ..kept.left_out import how_to_start, lying_in
    from ..output import amount, note, note_missing, print_json
    from ..own_run.exporting import export_checkpoint

    here = Path(folder).absolute()
    with ask(here, to) as source:
        starting = partial(how_to_start, here)
        lying = lying_in(here, run)
        brought = export_checkpoint(source, run, step, place, starting, lying, merge=merge, dtype=dtype.value)
    if as_json:
        print_json({"path": str(place), **brought})
        return
    print(place)
    note(f"step {brought['step']}, {len(brought['files'])} files, {amount(brought['bytes'])}, from {brought['node']}")
    if (place / "adapter_config.json").exists():
        note(f"in Python: peft.PeftModel.from_pretrained(BASE, {str(place)!r}), BASE being the model that was adapted")
    elif (place / "config.json").exists():  # pretended weights have none
        note(f"in Python: transformers.AutoModelForCausalLM.from_pretrained({str(place)!r})")
    note_missing(brought)
