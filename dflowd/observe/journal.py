"""What people may read of a run, on disk: lines that a thread of its own appends, and that are read back after a start.

Figures are written at once. For the rest nobody waits for this disk: it is written within a second, and all is synced
every few, so that a kill costs one second of tasks and samples, and a power cut a few, of what other nodes mostly have
too. A full disk costs lines, and says so once. Bounded: a file that is long has its older half dropped, and of all runs
together those go whose files are the oldest.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dflow_protocols.books import CHECKPOINTS, COSTS, METRICS, NEEDED, SAMPLES, TASKS, TIMES, file_of, older, parse
from dflow_protocols.events import Report
from dflow_protocols.names import RunId

WRITE_S = 1.0  # that a line waits at most before it is written
SYNC_S = 5.0  # and before it would outlive a power cut
AT_ONCE = (CHECKPOINTS, TIMES, METRICS)  # a few lines a step; a version that is on disk is not made again, so figures
# of what it was trained on that were lost would be for good, and without its line nobody finds it
SHARES = {TASKS: 1 / 2, METRICS: 1 / 4, COSTS: 1 / 8, SAMPLES: 1 / 8}  # of what one run may have
OF_ONE_RUN = 1 / 4  # of what all may have
SMALL_FILE = 1 << 20  # of the rest: some lines a run, or one a checkpoint


class Journal:
    """Lines by run and name (see books.py), in a folder a run under `place`. `limit`: bytes of all runs together.
    All methods may be called from any thread, and so is `report`."""

    def __init__(self, place: Path, limit: int, report: Callable[[Report], None]) -> None:
        self._place, self._limit, self._report = place, limit, report
        self._unwritten: dict[tuple[RunId, str], dict[Hashable, str]] = {}
        self._buffer, self._disk = threading.Lock(), threading.Lock()
        self._unsynced: set[Path] = set()
        self._is_refused, self._is_closing = False, threading.Event()
        self._grown = 0  # bytes since all files together were looked at
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def append(self, run: RunId, name: str, row: Mapping[str, Any], replaces: Hashable = None) -> None:
        """A line more. `replaces`: of a line that is still unwritten and was appended with the same."""
        text = json.dumps(row)
        with self._buffer:
            lines = self._unwritten.setdefault((run, name), {})
            lines[len(lines) if replaces is None else ("", replaces)] = text
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_on, name="journal", daemon=True)
                self._thread.start()
        self._wake.set()
        if name in AT_ONCE:
            self.flush()

    def read(self, run: RunId, name: str, most_bytes: int | None = None) -> list[dict[str, Any]]:
        """All lines of a run, or the newest; what is damaged is passed over, and told."""
        self.flush()
        rows: list[dict[str, Any]] = []
        with self._disk:
            for path in self._paths(run, name):
                data = _tail(path, most_bytes)
                found, damaged = parse(name, data)
                rows += found
                if damaged:
                    self._report(Report("history.damaged", {"file": str(path), "lines": damaged}, "warning"))
        return rows

    def flush(self) -> None:
        """Write what waits."""
        with self._disk:
            with self._buffer:
                taken, self._unwritten = self._unwritten, {}
            for (run, name), lines in taken.items():
                self._write(run, name, "".join(text + "\n" for text in lines.values()).encode())
            if self._grown > self._limit // 64:
                self._grown = 0
                self._make_room()

    def close(self) -> None:
        """Write and sync all, and end the thread."""
        self._is_closing.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()
        self._sync()

    # On the disk ----------------------------------------------------------------------------------------------------

    def _write_on(self) -> None:
        synced = time.monotonic()
        while not self._is_closing.is_set():
            self._wake.wait()
            self._wake.clear()
            self._is_closing.wait(WRITE_S)
            self.flush()
            if time.monotonic() > synced + SYNC_S:
                self._sync()
                synced = time.monotonic()

    def _write(self, run: RunId, name: str, data: bytes) -> None:
        try:
            path = self._place / run / file_of(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab+") as file:
                size = file.seek(0, os.SEEK_END)
                if size + len(data) > self._share(name) // 2 and size:
                    path.rename(path.with_name(older(path.name)))
                    self._grown = self._limit  # look at all
                    return self._write(run, name, data)
                if size and (file.seek(size - 1), file.read(1))[1] != b"\n":
                    data = b"\n" + data  # the last line of a daemon that was killed may be torn
                file.write(data)
        except OSError as error:
            if not self._is_refused:
                self._report(Report("history.unwritten", {"error": error.strerror or str(error)}, "warning"))
            self._is_refused = True
            return None
        self._is_refused = False
        self._unsynced.add(path)
        self._grown += len(data)
        return None

    def _share(self, name: str) -> int:
        return int(self._limit * OF_ONE_RUN * SHARES[name]) if name in SHARES else SMALL_FILE

    def _sync(self) -> None:
        with self._disk:
            paths, self._unsynced = self._unsynced, set()
        for path in paths:
            with contextlib.suppress(OSError), path.open("rb") as file:
                os.fdatasync(file.fileno())

    def _make_room(self) -> None:
        """Delete what the oldest runs have of the large files, until all together have room."""
        runs = {folder: list(_large(folder)) for folder in self._place.iterdir() if folder.is_dir()}
        sizes = {folder: sum(size for _, size, _ in files) for folder, files in runs.items()}
        for folder in sorted(runs, key=lambda folder: max((at for _, _, at in runs[folder]), default=0.0)):
            total = sum(sizes.values())
            if total <= self._limit:
                return
            for path, _, _ in runs[folder]:
                path.unlink(missing_ok=True)
            if sizes[folder]:
                self._report(Report("history.dropped", {"run": folder.name, "bytes": sizes[folder]}))
            sizes[folder] = 0

    def _paths(self, run: RunId, name: str) -> Iterator[Path]:
        path = self._place / run / file_of(name)
        yield path.with_name(older(path.name))
        yield path


def _tail(path: Path, most_bytes: int | None) -> bytes:
    """The newest whole lines; nothing of a file that is not there or cannot be read."""
    try:
        with path.open("rb") as file:
            if most_bytes is None or file.seek(0, os.SEEK_END) <= most_bytes:
                file.seek(0)
                return file.read()
            file.seek(-most_bytes, os.SEEK_END)
            return file.read().partition(b"\n")[2]
    except OSError:
        return b""


def _large(folder: Path) -> Iterator[tuple[Path, int, float]]:
    """(path, bytes, when it was written) of the files that are bounded together."""
    for name in NEEDED:
        for path in (folder / file_of(name), folder / older(file_of(name))) if name in SHARES else ():
            with contextlib.suppress(OSError):
                found = path.stat()
                yield path, found.st_size, found.st_mtime
