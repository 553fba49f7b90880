"""DIR, the folder of a local mesh and of this client's key: where it is unless said, and how a command names it."""

from __future__ import annotations

import shlex
from pathlib import Path

DEFAULT_FOLDER = Path(".dflow")


def dir_option(folder: Path) -> str:
    """What a proposed command says to mean this folder: ` --dir DIR`, or nothing where that is the default."""
    return "" if folder.absolute() == DEFAULT_FOLDER.absolute() else f" --dir {shlex.quote(str(folder))}"
