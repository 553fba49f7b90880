"""dflow report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..folder import DEFAULT_FOLDER
from ..options import AsJson, Folder, Run, To


def report(
    run: Run,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="By default RUN.html here; with --json none unless said."),
    ] = None,
    price_per_hour: Annotated[
        float | None, typer.Option("--price-per-hour", metavar="PRICE", help="Of each node; the report has costs then.")
    ] = None,
    prices: Annotated[
        Path | None,
        typer.Option("--prices", metavar="FILE", help="Prices an hour by node's name: a YAML file, or a TOML one."),
    ] = None,
    folder: Folder = DEFAULT_FOLDER,
    to: To = "",
    as_json: AsJson = False,
) -> None:
    """Tell a run on one page of HTML that needs no network: what it waited for, its nodes, curves, samples, cost.

    With --json the same figures as one object.

    Example: dflow report 3f9c -o run.html --price-per-hour 1.20
    """
    from dataclasses import asdict

    from ..errors import writing
    from ..kept.asking import ask
    from ..output import note_missing, print_json
    from ..report.figures import report_of
    from ..report.gathered import gather
    from ..report.page.page import render, write
    from ..report.prices import pricing

    price_of = pricing(price_per_hour, prices)
    with ask(Path(folder).absolute(), to) as source:
        made = report_of(gather(source, run), price_of)
    path = out or (None if as_json else Path(f"{run}.html"))
    if path is not None:
        with writing(path):
            write(path, render(made))
    if as_json:
        print_json(asdict(made.figures) | ({"path": str(path)} if path else {}))
    else:
        print(path)
    note_missing({"missing": made.figures.missing})
