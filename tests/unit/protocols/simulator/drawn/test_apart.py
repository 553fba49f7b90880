"""Meshes that are lived in processes apart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

PATIENCE_S = 60.0
ENDED_AT_ONCE = """
import os, signal, time
from dflow_protocols.simulator.drawn.apart import two_sides

if __name__ == "__main__":
    with two_sides() as (one, other):
        print(one.submit(os.getpid).result(), other.submit(os.getpid).result(), flush=True)
        one.submit(time.sleep, 600.0)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_who_lives_worlds_ends_with_who_asked_for_them() -> None:
    """A survey that is killed would leave a process on every core, which waits for work for good."""
    asking = subprocess.Popen([sys.executable, "-c", ENDED_AT_ONCE], stdout=subprocess.PIPE, start_new_session=True)
    try:
        told, _ = asking.communicate(timeout=PATIENCE_S)  # until nobody has its output open
    finally:
        if asking.returncode is None:
            os.killpg(asking.pid, signal.SIGKILL)
            asking.communicate()
    assert asking.returncode == -signal.SIGKILL
    assert len(told.split()) == 2
