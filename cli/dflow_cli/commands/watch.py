"""dflow watch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..folder import DEFAULT_FOLDER
from ..options import Folder, To


def watch(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Without it, the newest run.")] = "",
    folder: Folder = DEFAULT_FOLDER,
    to: To = "",
) -> None:
    """Show a run while it goes on. Ctrl-C ends the watching, not the run.

    Example: dflow watch 3f9c
    """
    from ..errors import CliError
    from ..kept.asking import ask
    from ..kept.ended import how_it_stood
    from ..kept.source import news_of
    from ..own_run.summary import print_summary
    from ..runs.follow import acquaint, follow
    from ..views.progress import progress

    place = Path(folder).absolute()
    with ask(place, to) as source:
        client = news_of(source)
        if client is not None:
            acquaint(client, place)
        if not run:
            known = source.call("runs")["runs"]
            if not known:
                raise CliError("the mesh knows no run", hint="submit one with `dflow submit SPEC`")
            run = str(max(known, key=lambda row: float(row.get("submitted_s") or 0.0))["run"])
        if client is None:
            outcome = how_it_stood(source, place, run)
        else:
            with progress() as view:
                outcome = follow(client, place, run, view).outcome
    print_summary(outcome)
    raise typer.Exit(outcome.exit_code)
