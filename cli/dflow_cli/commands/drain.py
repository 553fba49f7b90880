"""dflow drain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..folder import DEFAULT_FOLDER
from ..options import AsJson, Folder, To


def drain(
    node: Annotated[str, typer.Argument(metavar="NODE", help="Its name, or the first four digits or more of its id.")],
    undo: Annotated[bool, typer.Option("--undo", help="Let it take work again.")] = False,
    folder: Folder = DEFAULT_FOLDER,
    to: To = "",
    as_json: AsJson = False,
) -> None:
    """Take a daemon out of work before its host is: it ends what runs, hands over what only it has, and takes no more.

    Waits until it is idle, which Ctrl-C ends; the drain goes on. The daemon stays a member, answers and serves what it
    has, also after a restart, until --undo.

    Example: dflow drain n2
    """
    from ..mesh.reach import reach
    from ..output import note, print_json
    from ..runs.idle import await_idle, standing

    with reach(Path(folder).absolute(), to) as client:
        answer = client.call("drain", {"name": node, "undo": undo})
        name = answer["name"]
        if not undo:
            answer |= await_idle(client, name, str(answer["id"]), answer, lambda left: note(standing(name, left)))
    if as_json:
        print_json({"is_drained": not undo, **answer})
    elif undo:
        print(f"{name} takes work again")
    else:
        print(f"{name} is drained and idle: its daemon may be stopped")
