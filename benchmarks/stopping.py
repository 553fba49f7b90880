"""What SIGTERM does to a program that has started others: they end with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

PATIENCE_S = 30.0  # that processes get to end by themselves: daemons leave their mesh
LOOK_S = 0.05  # between two looks whether they have


@contextmanager
def cleaned_up() -> Iterator[None]:
    """SIGTERM ends the block as an error does, so that the daemons of a benchmark end with it."""

    def leave(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # `timeout` tells a process and its group: twice
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def ended_with_us(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """A process that leads a session of its own does not outlive the block, nor do those that it started there."""
    try:
        yield
    except BaseException:
        _end(process)
        raise


def _end(leader: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + PATIENCE_S
    _tell(leader.pid, signal.SIGTERM)
    while time.monotonic() < until and (leader.poll() is None or _tell(leader.pid, 0)):
        time.sleep(LOOK_S)
    _tell(leader.pid, signal.SIGKILL)
    leader.wait()


def _tell(group: int, number: int) -> bool:
    """Whether anybody of the group is left to be told."""
    with suppress(ProcessLookupError):
        os.killpg(group, number)
        return True
    return False
