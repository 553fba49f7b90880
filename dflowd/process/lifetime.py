"""When processes began: with its beginning a pid means one process, without it whichever has the number now."""

from __future__ import annotations

import os
import time
from pathlib import Path


def began_ticks(pid: int) -> int | None:
    """Clock ticks from the host's start to that of a process; None if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[19])  # field 22 of proc(5), counted after the command's name


def age_s() -> float:
    """Seconds since this process was started, its imports included."""
    began = began_ticks(os.getpid()) or 0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began / os.sysconf("SC_CLK_TCK")
