"""How a command finds a daemon: the mesh in DIR, or the door it is given; and who else to ask when that is gone."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import EXIT_NO_DAEMON, Problem
from .client import Client, Door, parse_door
from .keyfiles import key_pair
from .meshfiles import read_mesh, replace_text


def reach(folder: Path, to: str = "") -> Client:
    """A client of the daemon `to` (KEY@HOST:PORT, or the name of a daemon in DIR), else of the mesh in DIR, else of
    the mesh that was met last from there.

    Its key is DIR/client.key. Raises Problem; nothing is sent yet.
    """
    mesh = read_mesh(folder)
    nodes = mesh.nodes if mesh is not None else ()
    named = {node.name: node.door for node in nodes}
    if to:
        first = named[to] if to in named else parse_door(to)
        met = remembered(folder)  # another mesh's are of no use
        others = [node.door for node in nodes] if first in named.values() else met if first in met else []
        doors = [first, *(door for door in others if door != first)]
        folder.mkdir(parents=True, exist_ok=True)
    else:
        doors = list(named.values()) or remembered(folder)
    if not doors:
        raise Problem(
            "no mesh was started here",
            where=str(folder),
            hint="start one with `dflow up --nodes 3`, or name a daemon with --to KEY@HOST:PORT",
            exit_code=EXIT_NO_DAEMON,
        )
    return Client(doors, key_pair(folder / "client.key"))


def meet(client: Client, folder: Path, members: Iterable[Mapping[str, Any]]) -> None:
    """Take up the daemons that an answer of `nodes` lists, for this client and, in DIR, for later ones."""
    asked = client.doors[0]
    client.learn(Door(member["key"], member["control"]) for member in members if _is_door(member))
    mesh = read_mesh(folder)
    if mesh is None or asked not in [node.door for node in mesh.nodes]:
        _remember(folder, client.doors)


def _is_door(member: Mapping[str, Any]) -> bool:
    return member.get("state") != "left" and bool(member.get("key")) and bool(member.get("control"))


def _remember(folder: Path, doors: tuple[Door, ...]) -> None:
    """Convenience only: a folder that cannot be written costs the fallback, not the command."""
    with contextlib.suppress(OSError):
        replace_text(folder / "known.json", json.dumps([str(door) for door in doors]) + "\n")


def remembered(folder: Path) -> list[Door]:
    """The daemons of the mesh that was met last by way of --to."""
    try:
        return [parse_door(text) for text in json.loads((folder / "known.json").read_text())]
    except (OSError, ValueError, TypeError, Problem):
        return []
