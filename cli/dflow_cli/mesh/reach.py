"""How a command finds a daemon: the mesh in DIR, or the endpoint given; and who else to ask when that is gone."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import EXIT_NO_DAEMON, CliError
from .client import Client, KeyedEndpoint, parse_keyed_endpoint
from .keyfiles import key_pair
from .meshfiles import read_mesh, replace_text


def reach(folder: Path, to: str = "") -> Client:
    """A client of the daemon `to` (KEY@HOST:PORT, or the name of a daemon in DIR), else of the mesh in DIR, else of
    the mesh that was met last from there.

    Its key is DIR/client.key. Raises CliError; nothing is sent yet.
    """
    mesh = read_mesh(folder)
    nodes = mesh.nodes if mesh is not None else ()
    named = {node.name: node.endpoint for node in nodes}
    if to:
        first = named[to] if to in named else parse_keyed_endpoint(to)
        met = remembered(folder)  # another mesh's are of no use
        others = [node.endpoint for node in nodes] if first in named.values() else met if first in met else []
        endpoints = [first, *(endpoint for endpoint in others if endpoint != first)]
        folder.mkdir(parents=True, exist_ok=True)
    else:
        endpoints = list(named.values()) or remembered(folder)
    if not endpoints:
        raise CliError(
            "no mesh was started here",
            where=str(folder),
            hint="start one with `dflow up --nodes 3`, or name a daemon with --to KEY@HOST:PORT",
            exit_code=EXIT_NO_DAEMON,
        )
    return Client(endpoints, key_pair(folder / "client.key"))


def meet(client: Client, folder: Path, members: Iterable[Mapping[str, Any]]) -> None:
    """Take up the daemons that an answer of `nodes` lists, for this client and, in DIR, for later ones."""
    asked = client.endpoints[0]
    client.learn(KeyedEndpoint(member["key"], member["control"]) for member in members if _is_dialled(member))
    mesh = read_mesh(folder)
    if mesh is None or asked not in [node.endpoint for node in mesh.nodes]:
        _remember(folder, client.endpoints)


def _is_dialled(member: Mapping[str, Any]) -> bool:
    return member.get("state") != "left" and bool(member.get("key")) and bool(member.get("control"))


def _remember(folder: Path, endpoints: tuple[KeyedEndpoint, ...]) -> None:
    """Convenience only: a folder that cannot be written costs the fallback, not the command."""
    with contextlib.suppress(OSError):
        replace_text(folder / "known.json", json.dumps([str(endpoint) for endpoint in endpoints]) + "\n")


def remembered(folder: Path) -> list[KeyedEndpoint]:
    """The daemons of the mesh that was met last by way of --to."""
    try:
        return [parse_keyed_endpoint(text) for text in json.loads((folder / "known.json").read_text())]
    except (OSError, ValueError, TypeError, CliError):
        return []
