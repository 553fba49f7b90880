"""A spec's folder as it lies on this machine's disk."""

from __future__ import annotations

import errno
import mmap
from pathlib import Path

from dflow_protocols.pipeline.grammar.text import is_text


class DiskFolder:
    """A `dflow_protocols.pipeline.files.Folder`. Engines have their own: they share no code with clients."""

    def __init__(self, base: Path) -> None:
        self._base = base

    def names(self, name: str) -> list[str] | None:
        folder = self._base / name
        if not folder.is_dir():
            return None
        found = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
        if odd := next((each for each in found if not is_text(each)), None):
            raise OSError(errno.EILSEQ, "the name of this file is not UTF-8", str(folder / odd))
        return found

    def read(self, name: str) -> memoryview | None:
        path = self._base / name
        if not path.is_file():
            return None
        with path.open("rb") as file:  # mapped, since models are as large as they are
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b"")
