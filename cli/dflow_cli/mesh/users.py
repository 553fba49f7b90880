"""Which commands need the mesh that a `dflow run` started in DIR: it stops once none of them does.

Each holds a shared lock on DIR/users meanwhile, which the kernel takes back however the command ends. Who stops the
mesh holds the lock alone until it has, so that nobody begins on daemons that are about to go.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path

FILE, MODE = "users", "a+"  # NFS wants a reader for a shared lock, and a writer for the other


@contextlib.contextmanager
def use(folder: Path) -> Iterator[None]:
    """Need the mesh while the block lasts; waits for whoever is stopping it."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / FILE, MODE) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


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
