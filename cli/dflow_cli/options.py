"""Arguments and options that several commands take, each with one meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .folder import VARIABLE
from .runs.completion import complete_run

Folder = Annotated[
    Path,
    typer.Option("--dir", metavar="DIR", envvar=VARIABLE, help="Folder of a local mesh and of this client's key."),
]
To = Annotated[str, typer.Option("--to", metavar="KEY@HOST:PORT", help="The daemon to ask; without it, those in DIR.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="Id of the run, or the first four digits or more of it.", autocompletion=complete_run
    ),
]
Spec = Annotated[Path, typer.Argument(metavar="SPEC", help="The pipeline: a YAML file, or a Python file.")]
Overlays = Annotated[list[Path] | None, typer.Argument(metavar="OVERLAY", help="YAML files laid over it, in order.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set one value, such as params.warmup=2. May be repeated."),
]
