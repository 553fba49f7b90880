"""Processes that end with who started them, and all that they started with them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys

PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """SIGKILL when the thread of `parent` that started this process ends. Exits if that was before now."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def tie_group(lifeline: int) -> None:
    """Leave a shell behind that ends this group of processes once nobody holds the other end of `lifeline`.

    A signal for the death of the parent reaches this process alone: neither its children, nor theirs.
    """
    wait = "exec 3<&0; { read _ <&3; kill -KILL 0; } &"
    with contextlib.suppress(OSError):  # without a shell they end when who started them does so in order
        quiet = subprocess.DEVNULL
        subprocess.run(["/bin/sh", "-c", wait], stdin=lifeline, stdout=quiet, stderr=quiet, check=False)
    os.close(lifeline)
