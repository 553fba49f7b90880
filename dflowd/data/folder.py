"""A spec's folder as it lies on this host's disk."""

from __future__ import annotations

import mmap
import socket
from pathlib import Path

from dflow_protocols.pipeline import Pipeline
from dflow_protocols.pipeline.files import ELSEWHERE, changed, laid
from dflowd.jobs.failures import HostError


def at(base: Path, name: str) -> Path:
    """Where a file or folder lies that a spec names so. `base`: the spec's folder, or one that stands for it."""
    return base / (laid(name) if (base / ELSEWHERE).is_dir() else name)


class DiskFolder:
    """A `dflow_protocols.pipeline.files.Folder`. Clients have their own: they share no code with engines."""

    def __init__(self, base: Path) -> None:
        self._base = base

    def names(self, name: str) -> list[str] | None:
        folder = at(self._base, name)
        if not folder.is_dir():
            return None
        return [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]

    def read(self, name: str) -> memoryview | None:
        path = at(self._base, name)
        if not path.is_file():
            return None
        with path.open("rb") as file:  # mapped, since models are as large as they are
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b"")


def check_files(pipeline: Pipeline, base: Path, which: str = "") -> None:
    """Raises HostError where a file that the spec names is not the one that the run was submitted with: two hosts of
    other code or data would make other results of one task. `which`: those under a key, or one function; else all.
    """
    for named, what in changed(pipeline, DiskFolder(base), which):
        where = f"host {socket.gethostname()}: {named.path}: `{named.name}`"
        raise HostError(f"{where} in {base} {what}; copy the submitted one there, or submit the run again")
