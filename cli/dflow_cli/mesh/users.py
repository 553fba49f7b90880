"""Which commands need the mesh that a `dflow run` started in DIR: it stops once none of them does.

Each holds a shared lock on DIR/users meanwhile, which the kernel takes back however the command ends. Who stops the
mesh holds the lock alone until it has, so that nobody begins on daemons that are about to go.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .localmesh import LEAVE_S, POLL_S, running

FILE, MODE = "users", "a+"  # NFS wants a reader for a shared lock, and a writer for the other


@contextlib.contextmanager
def use(folder: Path) -> Iterator[None]:
    """Need the mesh while the block lasts; waits for whoever is stopping it."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / FILE, MODE) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def await_end(folder: Path, on_wait: Callable[[], None]) -> None:
    """Until daemons that no command needs any more have ended: whoever started them was killed, and they end by
    themselves. `on_wait` is called if there are some."""
    until, is_told = time.monotonic() + LEAVE_S, False
    while _is_abandoned(folder) and time.monotonic() < until:
        if not is_told:
            on_wait()
        is_told = True
        time.sleep(POLL_S)


def _is_abandoned(folder: Path) -> bool:
    if not (folder / FILE).exists() or (up := running(folder)) is None or not up.is_of_run:
        return False
    with open(folder / FILE, MODE) as file:  # for a moment only: whoever is about to stop them wants it, too
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@contextlib.contextmanager
def alone(folder: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Once no command needs the mesh any more, and while none can come to. `on_wait` is called if some still do."""
    with open(folder / FILE, MODE) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
