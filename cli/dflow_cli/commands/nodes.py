"""dflow nodes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..options import DEFAULT_FOLDER, AsJson, Folder, To


def nodes(folder: Folder = DEFAULT_FOLDER, to: To = "", as_json: AsJson = False) -> None:
    """List the daemons of the mesh, as the one that is asked sees them.

    Example: dflow nodes --dir /tmp/mesh --json
    """
    from ..output import note_missing, print_json, print_table
    from ..reach import meet, reach

    place = Path(folder).absolute()
    with reach(place, to) as client:
        answer = client.call("nodes")
        meet(client, place, answer["nodes"])
    if as_json:
        print_json(answer)
        return
    columns = ("id", "name", "state", "incarnation", "control", "device", "slots")
    rows = [
        [str(node["id"])[:8], *(node.get(column) for column in columns[1:])]
        for node in sorted(answer["nodes"], key=_by_name)
    ]
    print_table(columns, rows)
    note_missing(answer)


def _by_name(node: Mapping[str, Any]) -> tuple[int, str]:
    """n2 before n10."""
    name = str(node.get("name", ""))
    return len(name), name
