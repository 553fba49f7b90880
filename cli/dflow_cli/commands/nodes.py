"""dflow nodes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from ..folder import DEFAULT_FOLDER
from ..options import AsJson, Folder, To


def nodes(folder: Folder = DEFAULT_FOLDER, to: To = "", as_json: AsJson = False) -> None:
    """List the daemons of the mesh, as the one that is asked sees them. Where none runs: those that ran; exit code 3.

    Example: dflow nodes --dir /tmp/mesh --json
    """
    from ..errors import EXIT_DONE, EXIT_NO_DAEMON
    from ..kept.asking import ask
    from ..kept.source import news_of
    from ..mesh.reach import meet
    from ..output import note, note_missing, print_json, print_table
    from ..views.gpus import gpu_line

    place = Path(folder).absolute()
    with ask(place, to) as source:
        answer = source.call("nodes")
        if (client := news_of(source)) is not None:
            meet(client, place, answer["nodes"])
    code = EXIT_DONE if client is not None else EXIT_NO_DAEMON
    if as_json:
        print_json(answer)
        raise typer.Exit(code)
    columns = ["id", "name", "state", "incarnation", "control", "device", "slots"]
    nodes = sorted(answer["nodes"], key=_by_name)
    rows = [
        [str(node["id"])[:8], node["name"], _state(node), *(node.get(column) for column in columns[3:])]
        for node in nodes
    ]
    if any(_roles(node) for node in nodes):
        columns.append("offers")
        rows = [[*row, _roles(node)] for row, node in zip(rows, nodes, strict=True)]
    if any(node.get("withdrawn") for node in nodes):
        columns.append("withdrawn from")
        rows = [[*row, _withdrawn(node)] for row, node in zip(rows, nodes, strict=True)]
    print_table(columns, rows)
    for node in nodes:
        if line := gpu_line(node):
            print(f"{node['name']}: {line}")
    if any(node.get("drained") for node in nodes):
        note("hint: a slot whose GPU failed takes work again once that is mended; `dflow doctor` says how")
    note_missing(answer)
    raise typer.Exit(code)


def _state(node: Mapping[str, Any]) -> str:
    """As the member that was asked sees it; of one that is well and takes no work, that."""
    return "drained" if node["state"] == "alive" and node.get("is_drained") else str(node["state"])


def _roles(node: Mapping[str, Any]) -> str:
    """What stages may require, beside what every node of its device offers."""
    return ", ".join(role for role in node.get("roles") or [] if role != "trainer")


def _withdrawn(node: Mapping[str, Any]) -> str:
    """Stages that fail on this node, and why."""
    return "; ".join(f"{each['stage']}: {each['error']}" for each in node.get("withdrawn") or [])


def _by_name(node: Mapping[str, Any]) -> tuple[int, str]:
    """n2 before n10."""
    name = str(node.get("name", ""))
    return len(name), name
