"""Parts of this machine's cores for groups of processes: Linux's control groups, version 1 or 2. Needs root."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.hosts import is_stale
from tests.support.until import until

VERSION_1, VERSION_2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
PERIOD_US = 10_000  # in which a group has its part: so short that it stands for a slower core, and not for pauses
LEAST_QUOTA_US = 1_000  # what the kernel takes
SHARES = 88_761  # as much as a process with a nice value of -20
GONE_S = 30.0  # by when processes that were killed are


def lacks_quotas() -> str:
    """Why this machine lets us give no parts of its cores, in words; empty if it does."""
    try:
        with Quotas(["probe"]) as quotas:
            quotas.limit(1.0)
    except OSError as why:
        return f"may not make control groups: {why}"
    return ""


class Quotas:
    """A control group for each name, without a limit at first; they come before whatever else this machine does. Use as
    a context: at its end the groups are gone, and whoever is left in them is in the group of all."""

    def __init__(self, names: Sequence[str], *, version_1: Path = VERSION_1, version_2: Path = VERSION_2) -> None:
        self._is_first = version_1.is_dir()
        self._root = version_1 if self._is_first else version_2
        self._folders = {name: self._root / f"dh{os.getpid()}x{name}" for name in names}  # as hosts are called

    def __enter__(self) -> Self:
        for left in self._root.glob("dh*x*"):
            if is_stale(left.name):
                left.rmdir()
        for folder in self._folders.values():
            folder.mkdir()
        self._favour()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for folder in self._folders.values():
            until(partial(self._remove, folder), GONE_S)

    def enter(self, name: str | None) -> None:
        """This process, and what it starts from now on, is of that group; of the group of all if None."""
        self._move(self._folders[name] if name else self._root, os.getpid())

    def limit(self, cores: float) -> None:
        """From now on each group has as much processor time as so many cores, and no more."""
        period = max(PERIOD_US, round(LEAST_QUOTA_US / cores))
        quota = round(cores * period)
        for folder in self._folders.values():
            if self._is_first:
                (folder / "cpu.cfs_period_us").write_text(f"{period}")
                (folder / "cpu.cfs_quota_us").write_text(f"{quota}")
            else:
                (folder / "cpu.max").write_text(f"{quota} {period}")

    def _favour(self) -> None:
        """A nice value would not do: it counts among those of one group."""
        name, share = ("cpu.shares", SHARES) if self._is_first else ("cpu.weight", SHARES * 100 // 1024)
        for folder in self._folders.values():
            (folder / name).write_text(f"{share}")

    def throttled_s(self) -> dict[str, float]:
        """Seconds that processors of each group waited since its part was used up, all its runnable cores together."""
        key, unit = ("throttled_time", 1e9) if self._is_first else ("throttled_usec", 1e6)
        told = {}
        for name, folder in self._folders.items():
            stat = dict(line.split() for line in (folder / "cpu.stat").read_text().splitlines())
            told[name] = int(stat[key]) / unit
        return told

    def _remove(self, folder: Path) -> bool:
        """Whether it is gone; a process that ends just now is in it until it has ended."""
        for pid in (folder / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                self._move(self._root, int(pid))
        try:
            folder.rmdir()
        except OSError as why:
            if why.errno != errno.EBUSY:
                raise
            return False
        return True

    @staticmethod
    def _move(folder: Path, pid: int) -> None:
        (folder / "cgroup.procs").write_text(f"{pid}")
