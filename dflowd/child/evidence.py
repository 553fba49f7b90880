"""Evidence that a process does something while one call of a library says nothing: processor time, bytes moved.

A model that is opened, a folder that is hashed: none of them can be asked how far it is. What hangs uses no processor
and moves no bytes; that tells it apart from what merely takes long.
"""

from __future__ import annotations

import time
from pathlib import Path

WORTH_S = 0.02  # of processor time: more than waiting takes
DISK = ("read_bytes", "write_bytes")  # of /proc/self/io: by storage, which a look at /proc does not touch


class Evidence:
    """Of this process. Asked again and again by one thread of it, whose own time does not count."""

    def __init__(self) -> None:
        self._processor_s, self._disk_bytes = _processor_s(), _disk_bytes()

    def has_grown(self) -> bool:
        """Whether the process did something since this was last true, or since the beginning."""
        processor_s, disk_bytes = _processor_s(), _disk_bytes()
        if processor_s - self._processor_s < WORTH_S and disk_bytes == self._disk_bytes:
            return False
        self._processor_s, self._disk_bytes = processor_s, disk_bytes
        return True


def _processor_s() -> float:
    return time.process_time() - time.thread_time()


def _disk_bytes() -> int:
    """Zero where the kernel does not tell."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(value) for name, _, value in (line.partition(":") for line in lines) if name in DISK)
