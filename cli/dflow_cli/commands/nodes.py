"""dflow nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from ..folder import DEFAULT_FOLDER
from ..options import AsJson, Folder, To, Watch


def nodes(folder: Folder = DEFAULT_FOLDER, to: To = "", watch: Watch = False, as_json: AsJson = False) -> None:
    """List the daemons of the mesh, as the one that is asked sees them. Where none runs: those that ran; exit code 3.

    Of each what runs there (task, for how long), its share of what the last steps took, its host's load by cores and
    memory, and when it was last heard. A narrow terminal shows less; --json has all.

    Example: dflow nodes --dir /tmp/mesh --watch
    """
    from ..errors import EXIT_DONE, EXIT_NO_DAEMON
    from ..kept.asking import ask
    from ..kept.source import news_of
    from ..mesh.reach import meet
    from ..output import note, note_missing, print_json
    from ..views.listing import Listing, show, show_again, terminal_width
    from ..views.nodes import nodes_listing

    place = Path(folder).absolute()
    with ask(place, to) as source:
        client = news_of(source)

        def answered() -> dict[str, Any]:
            answer = source.call("nodes", {"detail": True})
            if client is not None:
                meet(client, place, answer["nodes"])
            return answer

        def listed() -> Listing:
            return nodes_listing(answered(), is_narrow=True)

        if watch and client is not None:
            show_again(listed)
            raise typer.Exit(EXIT_DONE)
        answer = answered()
    code = EXIT_DONE if client is not None else EXIT_NO_DAEMON
    if as_json:
        print_json(answer)
        raise typer.Exit(code)
    show(nodes_listing(answer, is_narrow=terminal_width() is not None))
    if any(node.get("drained") for node in answer["nodes"]):
        note("hint: a slot whose GPU failed takes work again once that is mended; `dflow doctor` says how")
    note_missing(answer)
    raise typer.Exit(code)
