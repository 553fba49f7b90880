"""What a worker, a process that runs a user's functions, may take of its host."""

from __future__ import annotations

import resource
from dataclasses import dataclass

FILE_BYTES = 1 << 30  # of one file that it writes: a log that is never cut ends its call, not the disk
OPEN_FILES = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """`workers`: at most so many processes at once. `memory_bytes`: of each, memory of its own; mapped files are not
    counted. `silence_s`: that an import takes, and a call without a limit of its own."""

    workers: int = 1
    memory_bytes: int = 8 << 30
    silence_s: float = 300.0

    def hold(self) -> None:
        """Bind this process to them, and whatever it starts."""
        _lower(resource.RLIMIT_DATA, self.memory_bytes)
        _lower(resource.RLIMIT_FSIZE, FILE_BYTES)
        _lower(resource.RLIMIT_NOFILE, OPEN_FILES)
        _lower(resource.RLIMIT_CORE, 0)


def _lower(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    if hard == resource.RLIM_INFINITY or most < hard:
        resource.setrlimit(what, (most, most))
