"""dflow wait."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..folder import DEFAULT_FOLDER
from ..options import AsJson, Folder, Run, To


def wait(
    run: Run,
    timeout_s: Annotated[
        float | None, typer.Option("--timeout", min=0.0, metavar="S", help="Give up after S seconds, with exit code 4.")
    ] = None,
    folder: Folder = DEFAULT_FOLDER,
    to: To = "",
    as_json: AsJson = False,
) -> None:
    """Wait for the end of a run. Exit code 0: done; 1: failed or cancelled; 4: still active.

    Example: dflow wait 3f9c --timeout 600 --json
    """
    from ..kept.asking import ask
    from ..kept.ended import how_it_stood
    from ..kept.source import news_of, origin
    from ..output import print_json
    from ..own_run.summary import print_summary
    from ..runs.follow import acquaint
    from ..runs.follow import wait as await_run

    place = Path(folder).absolute()
    with ask(place, to) as source:
        if (client := news_of(source)) is not None:
            acquaint(client, place)
            outcome = await_run(client, run, timeout_s)
        else:
            outcome = how_it_stood(source, place, run)
        said_by = {} if client is not None else origin(source.call("runs"))
    if as_json:
        print_json(outcome.to_json() | said_by)
    else:
        print_summary(outcome)
    raise typer.Exit(outcome.exit_code)
