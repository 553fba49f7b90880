"""A small file system of its own for one folder, and filling it. Needs root.

Its source carries this process's id, as names of network namespaces do: what a killed process left mounted is removed
when the next one is made.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.hosts import is_stale

SMALL_BYTES = 96 << 20


class NoMount(Exception):
    """This process may not mount a file system."""


@contextmanager
def small_disk(folder: Path, nbytes: int = SMALL_BYTES) -> Iterator[Path]:
    """`folder`, made if it is missing, on a disk of that size. Raises NoMount."""
    _remove_stale()
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={nbytes}", f"dh{os.getpid()}x", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        raise NoMount("only root may mount a file system")
    try:
        yield folder
    finally:
        _unmount(str(folder))


def fill(disk: Path) -> Path:
    """The file that takes what room there is."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            return filler


def _remove_stale() -> None:
    for line in Path("/proc/mounts").read_text().splitlines():
        source, folder, *_ = line.split()
        if is_stale(source):
            _unmount(folder)


def _unmount(folder: str) -> None:
    subprocess.run(["umount", "--lazy", folder], check=False, capture_output=True)
