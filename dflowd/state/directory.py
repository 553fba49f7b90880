"""The state directory: what a daemon must still know after a power cut.

Owns files and their durability; knows nothing of what a value means. Every write is a new file, fsynced and renamed
over the old one, so that a reader finds the old bytes or the new ones.

    key                 CURVE key pair, where the configuration names no other file
    machine             the machine's id: a copied directory would be two daemons of one identity
    lock                held by the one daemon that lives here
    address.json        where that daemon listens, for tools on this machine
    kept/KEY            what the protocols asked to persist
    runs/RUN/           what people read of a run (observe/journal.py), and its checkpoints
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgpack

from dflow_protocols.books import COSTS, METRICS, SAMPLES, TASKS, TIMES, file_of, older

from ..process.durable import replace_file, sync_folder
from ..process.passing import FULL, may_pass

_KEY = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")
MACHINE_ID_FILES = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


class StateError(Exception):
    """The state directory cannot be used. `what` and `hint` are for people. `may_pass`: it may be usable at another
    start, as a disk that is full, or one that another daemon is about to leave."""

    def __init__(self, what: str, hint: str, may_pass: bool = False) -> None:
        super().__init__(what)
        self.what, self.hint, self.may_pass = what, hint, may_pass

    @classmethod
    def unwritable(cls, path: Path, error: OSError) -> Self:
        hint = "name a folder that this user may write, or chown it"
        if error.errno in FULL:
            hint = "free some of that disk, or name a folder on another one"
        return cls(f"`{path}` cannot be written: {error.strerror}", hint, may_pass(error.errno))


class StateDirectory:
    """One daemon's folder, locked while it is open."""

    def __init__(self, path: Path) -> None:
        """Make the folder if need be and lock it. Raises StateError."""
        self.path = path
        try:
            (path / "kept").mkdir(parents=True, exist_ok=True)
            (path / "runs").mkdir(exist_ok=True)
            path.chmod(0o700)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateError.unwritable(path, error) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            hint = "give each daemon a state directory of its own"
            raise StateError(f"another daemon is running in `{path}`", hint, may_pass=True) from None

    def close(self) -> None:
        os.close(self._lock)

    def bind_to_machine(self) -> None:
        """Tie the folder to this machine at its first use. Raises StateError in a copy on another one."""
        here = _machine_id()
        if here is None:  # containers often have none; nothing to compare with
            return
        file = self.path / "machine"
        if not file.exists():
            replace_file(file, here.encode())
        elif file.read_text().strip() != here:
            raise StateError(
                f"`{self.path}` was made on another machine, and two daemons of one identity deafen each other",
                "remove the copied folder; a new one with a key of its own is made at the next start",
            )

    def next_incarnation(self) -> int:
        """A number higher than any this identity used before; on disk when this returns."""
        kept = self.read("incarnation")
        value = int(msgpack.unpackb(kept)) + 1 if kept else 1
        self.write("incarnation", msgpack.packb(value))
        return value

    def read(self, key: str) -> bytes | None:
        try:
            return self._file(key).read_bytes()
        except FileNotFoundError:
            return None

    def read_all(self, folder: str) -> dict[str, bytes]:
        """Everything kept under keys `folder/...`, by the rest of the key, sorted."""
        names = sorted(self._file(folder).glob("*")) if self._file(folder).is_dir() else []
        return {file.name: file.read_bytes() for file in names if not file.name.endswith(".new")}

    def read_aged(self, folder: str) -> list[tuple[str, bytes, float]]:
        """As `read_all`: names, values, and how many seconds ago by the wall clock each value came to be."""
        now_s = time.time()
        kept = [(name, value, self._file(f"{folder}/{name}")) for name, value in self.read_all(folder).items()]
        return [(name, value, max(0.0, now_s - file.stat().st_mtime)) for name, value, file in kept]

    def write(self, key: str, value: bytes, age_s: float = 0.0) -> None:
        """Keep `value`, which came to be `age_s` ago, under `key`; it outlives a power cut when this returns. An empty
        value forgets the key, and the books of a run, but none of its checkpoints: those are the user's."""
        file = self._file(key)
        if value:
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(file, value)
            if age_s:
                then_s = time.time() - age_s
                os.utime(file, (then_s, then_s))
            return
        file.unlink(missing_ok=True)
        if file.parent.is_dir():
            sync_folder(file.parent)
        folder, _, run = key.partition("/")
        if folder == "runs" and run:
            self._clear_books(self.path / "runs" / run)

    def _clear_books(self, folder: Path) -> None:
        for name in (METRICS, SAMPLES, TASKS, COSTS, TIMES):
            for file in (file_of(name), older(file_of(name))):
                (folder / file).unlink(missing_ok=True)
        if any((folder / "checkpoints").glob("*")):
            return
        shutil.rmtree(folder, ignore_errors=True)

    def free_bytes(self) -> int:
        """How much of its disk this user may still write. Raises OSError."""
        place = os.statvfs(self.path)
        return place.f_bavail * place.f_frsize

    def run_folder(self, run: str) -> Path:
        folder = self.path / "runs" / run
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def write_address(self, fields: Mapping[str, Any]) -> None:
        replace_file(self.path / "address.json", json.dumps(fields, indent=1).encode() + b"\n")

    def remove_address(self) -> None:
        (self.path / "address.json").unlink(missing_ok=True)

    def _file(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no key of the state directory")
        return self.path / "kept" / key


def _machine_id() -> str | None:
    for file in MACHINE_ID_FILES:
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        if text and text != "uninitialized":
            return text
    return None
