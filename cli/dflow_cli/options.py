"""Arguments and options that several commands take, each with one meaning."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .errors import CliError
from .folder import VARIABLE
from .runs.completion import complete_run


def needs_terminal(is_asked: bool) -> bool:
    """What is drawn in place has to lie on a terminal. Raises CliError."""
    if is_asked and not sys.stdout.isatty():
        hint = "leave it out, and ask as often as you like; `--json` gives an object for scripts"
        raise CliError("it draws on a terminal, and this is none", where="--watch", hint=hint)
    return is_asked


Folder = Annotated[
    Path,
    typer.Option("--dir", metavar="DIR", envvar=VARIABLE, help="Folder of a local mesh and of this client's key."),
]
To = Annotated[str, typer.Option("--to", metavar="KEY@HOST:PORT", help="The daemon to ask; without it, those in DIR.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Watch = Annotated[
    bool, typer.Option("--watch", callback=needs_terminal, help="Show it anew every second, until Ctrl-C.")
]
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
