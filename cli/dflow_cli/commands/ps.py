"""dflow ps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..folder import DEFAULT_FOLDER
from ..options import AsJson, Folder, To, Watch


def ps(folder: Folder = DEFAULT_FOLDER, to: To = "", watch: Watch = False, as_json: AsJson = False) -> None:
    """List the runs that the mesh knows, the newest last: seconds a step, time left, time since the submit, and whose
    key submitted it.

    Example: dflow ps --watch
    """
    from ..kept.asking import ask
    from ..kept.source import news_of, origin
    from ..output import note_missing, print_json
    from ..runs.pace import Paces
    from ..views.listing import Listing, show, show_again, terminal_width
    from ..views.runs import runs_listing

    with ask(Path(folder).absolute(), to) as source:
        paces = Paces()

        def answered() -> dict[str, Any]:
            answer = source.call("runs")
            return {**answer, "runs": paces.tell(source.call, answer["runs"])}

        def listed() -> Listing:
            return runs_listing(answered()["runs"], is_narrow=True)

        if watch and news_of(source) is not None:
            show_again(listed)
            return
        answer = answered()
    if as_json:
        print_json({"runs": answer["runs"], "missing": answer.get("missing", []), **origin(answer)})
        return
    show(runs_listing(answer["runs"], is_narrow=terminal_width() is not None))
    note_missing(answer)
