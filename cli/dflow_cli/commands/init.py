"""dflow init."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options import AsJson

TEMPLATE = Path(__file__).parents[1] / "template"


def init(
    place: Annotated[Path, typer.Argument(metavar="DIR", help="Made if it is not there; nothing in it is replaced.")],
    as_json: AsJson = False,
) -> None:
    """Write a task of your own to start from, ready to run. It is a commented pipeline, its data and its reward.

    Example: dflow init my_task
    """
    from ..output import note, print_json

    written = _copy(place)
    if as_json:
        print_json({"dir": str(place), "files": written})
        return
    for name in written:
        print(place / name)
    note(f"run it with: dflow run {place / 'pipeline.yaml'}")
    note(f"then change {place / 'rewards.py'}, and run it again")


def _copy(place: Path) -> list[str]:
    """The names of the files copied. Raises CliError where one is there already, and then copies none."""
    import shutil

    from ..errors import CliError, writing

    files = (file.relative_to(TEMPLATE) for file in TEMPLATE.rglob("*") if file.is_file())
    names = sorted(str(name) for name in files if "__pycache__" not in name.parts)
    taken = [name for name in names if (place / name).exists()]
    if taken:
        hint = "nothing is replaced: name another folder, or move that file away"
        raise CliError("is there already", where=str(place / taken[0]), hint=hint)
    for name in names:
        with writing(place / name):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(TEMPLATE / name, place / name)
    return names
