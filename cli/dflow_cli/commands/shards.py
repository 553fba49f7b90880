"""dflow shards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..folder import DEFAULT_FOLDER
from ..options import AsJson, Folder, To
from ..runs.completion import complete_run


def shards(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Of this run only.", autocompletion=complete_run)] = "",
    folder: Folder = DEFAULT_FOLDER,
    to: To = "",
    as_json: AsJson = False,
) -> None:
    """List what lies where, and how full each store is. Shards and their bytes by node, step and kind.

    Example: dflow shards 3f9c
    """
    from ..kept.asking import ask_mesh
    from ..output import amount, note_missing, print_json, print_table

    with ask_mesh(Path(folder).absolute(), to, "what lay where", "dflow ps") as client:
        answer = client.call("shards", {"run": run})
    if as_json:
        print_json(answer)
        return
    rows = [
        [node["node"], str(row["run"])[:8], row["step"], row["kind"], row["count"], amount(row["bytes"])]
        for node in answer["nodes"]
        for row in node["shards"]
    ]
    if rows:
        print_table(("node", "run", "step", "kind", "shards", "bytes"), rows)
        print()
    print_table(("node", "memory", "limit", "disk", "shards"), [_store(node) for node in answer["nodes"]])
    note_missing(answer)


def _store(node: Mapping[str, Any]) -> list[Any]:
    from ..output import amount

    store = node["store"]
    sizes = [amount(store[name]) for name in ("used_bytes", "limit_bytes", "disk_bytes")]
    return [node["node"], *sizes, store["shards_count"]]
