"""dflow story."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..folder import DEFAULT_FOLDER
from ..options import AsJson, Folder, To
from ..runs.completion import complete_task


def story(
    about: Annotated[
        str,
        typer.Argument(
            metavar="TASK|RUN",
            help="A task as `dflow tasks` lists it (12/roll/p3), of the run before it (3f9c/12/roll/p3), of the active "
            "one or of the newest; or a run, for the latest of all its tasks.",
            autocompletion=complete_task,
        ),
    ],
    step: Annotated[
        int | None, typer.Option("--step", min=0, metavar="STEP", help="Of a run: tasks of this step only.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="The newest N lines.")] = 500,
    folder: Folder = DEFAULT_FOLDER,
    to: To = "",
    as_json: AsJson = False,
) -> None:
    """Tell a task's life over all nodes. To whom it was dealt, who lent or stole, claimed, ran, recorded, sealed it.

    A line is one event on its node: `event` is that event's number there, the `cause` of the lines of `dflow logs`;
    `by` is the event that began what ends here. Nothing stands before what made it happen; what is not joined by a
    message is in the order of the nodes' clocks, which `at` is by, and which may differ.

    Each daemon remembers some thousands of lines of its present life. What a dead node did is told by those that heard
    of it.

    Example: dflow story 12/roll/p3
    """
    from ..kept.asking import ask_mesh
    from ..output import print_json
    from ..runs.lives import ask, in_order, parse
    from ..views.story import note_gaps, print_story, refuse_nothing

    params: dict[str, Any] = {"limit": limit}
    if step is not None:
        params["step"] = step
    instead = f"dflow tasks {parse(about)[0] or 'RUN'}"
    with ask_mesh(Path(folder).absolute(), to, "a task's story", instead) as client:
        answer = ask(client, about, params)
    answer["entries"] = in_order(answer["entries"])[-limit:]
    if as_json:
        print_json(answer)
        return
    if answer["entries"]:
        print_story(answer)
    note_gaps(answer)
    if not answer["entries"]:
        raise refuse_nothing(answer, step)
