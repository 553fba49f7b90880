"""dflow logs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ..folder import DEFAULT_FOLDER
from ..options import AsJson, Folder, To
from ..runs.completion import complete_run

MANY = 10_000
LOOK_S = 1.0  # between two looks of --follow


def logs(
    run: Annotated[
        str, typer.Argument(metavar="[RUN]", help="What names this run only.", autocompletion=complete_run)
    ] = "",
    node: Annotated[str, typer.Option("--node", metavar="NAME", help="Of this daemon only.")] = "",
    since: Annotated[
        str, typer.Option("--since", metavar="AGO", help="No older than this, such as 30s, 10m, 2h.")
    ] = "",
    level: Annotated[str, typer.Option("--level", help="At least: debug, info, warning, error.")] = "debug",
    limit: Annotated[int, typer.Option("--limit", min=1, help="The newest N.")] = 200,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as new ones come, until Ctrl-C.")] = False,
    folder: Folder = DEFAULT_FOLDER,
    to: To = "",
    as_json: AsJson = False,
) -> None:
    """Print the latest reports of all daemons, in the order of their clocks: TIME NODE LEVEL NAME FIELDS.

    Each daemon remembers its last two thousand; older ones are in its log file.

    Example: dflow logs 3f9c --level warning --since 10m
    """
    from ..errors import CliError
    from ..kept.asking import ask
    from ..kept.source import news_of
    from ..output import note_missing
    from ..views.reports import ago_s, print_report

    params: dict[str, Any] = {"run": run, "level": level, "limit": MANY if node else limit}
    if since:
        params["since_s"] = time.time() - ago_s(since)
    with ask(Path(folder).absolute(), to) as source:
        missing: list[Any] = []
        while True:
            answer = source.call("events", params)
            if node and node not in answer["names"].values():
                raise CliError(f"no daemon `{node}` is known here", where="--node", hint="`dflow nodes` lists them")
            events = [event for event in answer["events"] if node in ("", event["node"])]
            for event in events[-limit:]:
                print_report(event, answer["names"], as_json)
            if answer["missing"] != missing:
                note_missing(answer)
            missing = answer["missing"]
            if not follow or news_of(source) is None:
                return
            params |= {"after": {**params.get("after", {}), **answer["heard"]}, "limit": MANY}
            limit = MANY
            time.sleep(LOOK_S)
