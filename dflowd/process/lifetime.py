"""When processes began: with its beginning a pid means one process, without it whichever has the number now."""

from __future__ import annotations

import os
import time
from pathlib import Path


def began_ticks(pid: int) -> int | None:
    """Clock ticks from the host's start to that of a process; None if there is none, or if it has ended and only waits
    for its parent to notice: in a container it may wait for as long as that lives."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(fields[18])  # field 22 of proc(5), `state` being the third


def age_s() -> float:
    """Seconds since this process was started, its imports included."""
    began = began_ticks(os.getpid()) or 0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began / os.sysconf("SC_CLK_TCK")
