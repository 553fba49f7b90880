"""One daemon's life: it opens its rooms, serves until it is asked to stop, and leaves.

Before it closes anything its node has time to hand over what only it holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from functools import partial
from pathlib import Path

from dflow_protocols.events import Leaving, Report

from .boot.config import Config
from .driver import Driver
from .opening import Opened, Opening
from .process.collector import look_for_cycles_seldom
from .process.faults import EXIT_FAULT, Faults
from .process.host import Host
from .process.lifetime import age_s
from .process.sdnotify import keep_awake, notify
from .process.stopping import CLOSING_S, StopSignals

LEAVE_LOOK_S = 0.02  # how often a leaving daemon looks whether its node is done
EXIT_DONE = 0


class Daemon:
    """Made once a process. `path`: the configuration's file, for messages."""

    def __init__(self, config: Config, path: Path, signals: StopSignals) -> None:
        self._config, self._path, self._signals = config, path, signals
        self._started_s = time.time()

    async def run(self) -> int:
        """Start, serve until a signal asks to stop, leave; the process's exit status. Raises ConfigError, KeyFileError
        or StateError before it listens."""
        loop, stopping = asyncio.get_running_loop(), asyncio.Event()
        driver = Driver(loop)
        with contextlib.ExitStack() as closing:
            opening = Opening(self._config, self._path, driver, self._started_s, closing)
            opened = opening.open(lambda recorder: Host(loop, driver.post, recorder.report))
            host = opened.host
            faults = Faults(host, stopping.set)
            faults.install()
            drive = loop.create_task(driver.run(opened.node, opened.effects))
            drive.add_done_callback(partial(_note_end, faults))
            self._signals.serve(
                partial(loop.call_soon_threadsafe, stopping.set),
                self._config.mesh.leave_timeout_s,
                lambda at: host.report(Report("daemon.overdue", {"at": at}, "error")),
            )
            look_for_cycles_seldom()
            self._announce(opened)
            await stopping.wait()
            await self._leave(opened, drive)
        return EXIT_FAULT if faults.is_fatal else EXIT_DONE

    def _announce(self, opened: Opened) -> None:
        meta = opened.meta
        fields = {"name": meta.name, "control": meta.control, "bulk": meta.bulk, "pid": os.getpid()}
        opened.host.report(Report("daemon.started", {**fields, "took_s": round(age_s(), 3)}))
        notify("READY=1")
        keep_awake(opened.host.loop)

    async def _leave(self, opened: Opened, drive: asyncio.Task[None]) -> None:
        host, node = opened.host, opened.node
        leave_s = self._config.mesh.leave_timeout_s
        # A manager that would kill it sooner gives it that time: the limit is the configuration's, in one place.
        notify(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int((leave_s + CLOSING_S) * 1e6)}")
        patience_s = max(0.0, leave_s - CLOSING_S)
        host.report(Report("daemon.leaving", {"patience_s": patience_s}))
        host.post(Leaving())
        until = host.clock() + patience_s
        while not node.has_left and host.clock() < until and not drive.done():
            await asyncio.wait([drive], timeout=LEAVE_LOOK_S)
        drive.cancel()
        await asyncio.wait([drive])
        await opened.rooms.service.close()
        await opened.rooms.supplies.close()
        host.report(Report("daemon.stopped", {"clean": node.has_left}))


def _note_end(faults: Faults, drive: asyncio.Task[None]) -> None:
    """The driver ends only when the daemon leaves."""
    error = None if drive.cancelled() else drive.exception()
    if error is not None:
        faults.note("the driver", error, is_fatal=True)
