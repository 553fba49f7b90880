"""dflow plot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..folder import DEFAULT_FOLDER
from ..options import AsJson, Folder, Run, To


def plot(
    run: Run,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="By default RUN.png here.")] = None,
    folder: Folder = DEFAULT_FOLDER,
    to: To = "",
    as_json: AsJson = False,
) -> None:
    """Draw a run as a PNG: reward, accuracy, loss, length, time and more.

    Of what the run has: reward, held-out accuracy, the loss of each training stage, entropy, KL, completion length,
    gradient norm, learning rate, tokens a second, compute seconds by stage.

    Example: dflow plot 3f9c -o run.png
    """
    from ..kept.asking import ask
    from ..kept.source import origin
    from ..output import print_json
    from ..own_run.results import draw

    path = out or Path(f"{run}.png")
    with ask(Path(folder).absolute(), to) as source:
        steps, about = draw(source, run, path)
    if as_json:
        print_json({"path": str(path), "steps": steps, **origin(about)})
    else:
        print(path)
