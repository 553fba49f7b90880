"""The log's file: appended to, and moved aside when it is long, so that all of them together stay bounded."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


class LogFile:
    """At most `keep` older files FILE.1 (the newest) to FILE.N, of about `max_bytes` each, as the current one."""

    def __init__(self, path: Path, max_bytes: int, keep: int) -> None:
        """Raises OSError if it cannot be opened."""
        self._path, self._max_bytes, self._keep = path, max_bytes, keep
        self._file = path.open("a")
        self._nbytes = os.fstat(self._file.fileno()).st_size

    def write(self, text: str) -> None:
        """Raises OSError on a full disk: then the line is lost."""
        nbytes = len(text.encode())
        if self._nbytes and self._nbytes + nbytes > self._max_bytes:
            self._rotate()
        self._file.write(text)
        self._nbytes += nbytes

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()

    def _rotate(self) -> None:
        """Where files cannot be renamed, lines go on into the current one, until it is time to try again."""
        with contextlib.suppress(OSError):
            self._file.flush()
        self._nbytes = 0
        try:
            for number in range(self._keep - 1, 0, -1):
                with contextlib.suppress(FileNotFoundError):
                    self._older(number).rename(self._older(number + 1))
            if self._keep:
                self._path.rename(self._older(1))
            else:
                self._path.unlink()
            new = self._path.open("a")
        except OSError:
            return
        self.close()
        self._file = new

    def _older(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")
