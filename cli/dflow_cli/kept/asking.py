"""Whom a command asks: the daemon that is named, the mesh of DIR, or, where none runs, what DIR keeps of it."""

from __future__ import annotations

from pathlib import Path

from ..errors import EXIT_NO_DAEMON, CliError
from ..folder import dir_option
from ..mesh.client import Client
from ..mesh.localmesh import running
from ..mesh.reach import reach
from ..mesh.statefiles import is_left
from ..output import note
from .leftovers import Leftovers
from .source import Source


def ask_mesh(folder: Path, to: str, what: str, instead: str) -> Client:
    """For `what` only daemons know; `instead`: a command that the folder answers. Raises CliError."""
    if to or running(folder) is not None or not is_left(folder):
        return reach(folder, to)
    place = dir_option(folder)
    raise CliError(
        f"no daemon runs here, and {what} went with the memory of those that did",
        where=str(folder),
        hint=f"`dflow up{place}` starts some; what is known here: `{instead}{place}`",
        exit_code=EXIT_NO_DAEMON,
    )


def ask(folder: Path, to: str) -> Source:
    """Raises CliError; nothing is asked yet. That the folder answers is told at once."""
    if to or running(folder) is not None or not is_left(folder):
        return reach(folder, to)
    where = dir_option(folder).removeprefix(" --dir ") or str(folder)
    note(f"no daemon runs here; this is what {where} keeps of it")
    return Leftovers(folder)
