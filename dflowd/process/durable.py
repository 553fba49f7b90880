"""Small files that outlive a power cut: a new file, fsynced, then put in place, so that a reader finds the old bytes or
the new ones."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def replace_file(file: Path, value: bytes) -> None:
    """Write a file (mode 0600) over the one that is there, if any. On disk when this returns; raises OSError."""
    new = file.with_name(file.name + ".new")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _write_all(handle, value)
    except OSError:
        new.unlink(missing_ok=True)  # of a full disk even this is worth having back
        raise
    finally:
        os.close(handle)
    os.replace(new, file)
    sync_folder(file.parent)


def create_file(file: Path, value: bytes) -> None:
    """Write a file (mode 0600) where none is, whole or not at all. On disk when this returns; raises FileExistsError,
    and OSError."""
    handle, new = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        _write_all(handle, value)
        os.link(new, file)
    finally:
        os.close(handle)
        os.unlink(new)
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """The names in it are on disk. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_all(handle: int, value: bytes) -> None:
    written = 0
    while written < len(value):
        written += os.write(handle, value[written:])
    os.fsync(handle)
