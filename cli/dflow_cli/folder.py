"""DIR, the folder of a local mesh and of this client's key: where it is unless said, and how a command names it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

DEFAULT_FOLDER = Path(".dflow")
VARIABLE = "DFLOW_DIR"  # of the environment: DIR for all commands that are not told another one


def unsaid_folder() -> Path:
    """DIR of a command without `--dir`."""
    return Path(os.environ.get(VARIABLE) or DEFAULT_FOLDER)


def dir_option(folder: Path) -> str:
    """What a proposed command says to mean this folder: ` --dir DIR`, or nothing where it would be that one anyway."""
    return "" if folder.absolute() == unsaid_folder().absolute() else f" --dir {shlex.quote(str(folder))}"
