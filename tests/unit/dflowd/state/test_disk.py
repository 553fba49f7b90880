"""The state directory's disk while it fails: what is kept in the end is what was said last."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import threading
from pathlib import Path

from dflow_protocols.events import Event, NotPersisted, Persist, Persisted, Report
from dflowd.observe.problems import Problems
from dflowd.process.host import Host
from dflowd.state.directory import StateDirectory
from dflowd.state.disk import Disk


class Failing(StateDirectory):
    """A disk that takes nothing while `is_full`, and waits for `goes_on` before it takes anything."""

    is_full = True
    goes_on = threading.Event()

    def write(self, key: str, value: bytes, age_s: float = 0.0) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        assert self.goes_on.wait(10.0)
        super().write(key, value, age_s)


async def test_a_value_that_could_not_be_kept_never_comes_back_over_a_newer_one(tmp_path: Path) -> None:
    """A run that ended must not be found active after the next start."""
    state, events, reports = Failing(tmp_path), list[Event](), list[Report]()
    disk = Disk(Host(asyncio.get_running_loop(), events.append, reports.append), state, Problems())
    for key in ("first", "second"):
        with contextlib.suppress(OSError):
            await disk.write(Persist(key, b"old"))
    assert events == [NotPersisted("first"), NotPersisted("second")]
    state.is_full = False
    looking = asyncio.create_task(disk._check_again())
    await asyncio.sleep(0)  # it waits for the first to be written
    writing = asyncio.create_task(disk.write(Persist("second", b"new")))
    await asyncio.sleep(0)
    state.goes_on.set()
    await asyncio.gather(looking, writing)
    assert state.read("second") == b"new"
    assert {Persisted("first"), Persisted("second")} <= set(events)
    disk.close()
    state.close()


async def test_what_is_kept_at_once_or_never_is_not_tried_again(tmp_path: Path) -> None:
    """Its client was told no: it must not be found there after the next start."""
    state, events = Failing(tmp_path), list[Event]()
    disk = Disk(Host(asyncio.get_running_loop(), events.append, print), state, Problems())
    with contextlib.suppress(OSError):
        await disk.write(Persist("runs/r", b"new", or_never=True))
    assert events == [NotPersisted("runs/r", True)]
    state.is_full = False
    state.goes_on.set()
    await disk._check_again()
    assert state.read("runs/r") is None
    disk.close()
    state.close()
