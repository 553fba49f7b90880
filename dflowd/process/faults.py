"""What is raised where nobody catches it: in a callback or a task of the loop, in a thread, while an object is freed.

Each is told as `daemon.fault`, once a while for one place. A thread that ends by one is missed by whoever relies on it,
and so is the driver: then the daemon ends, with a status by which a service manager starts it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from dflow_protocols.events import Report

from .host import Host
from .tally import Tally

EXIT_FAULT = 1


class Faults:
    """`on_end` is called on the loop after a fault that the daemon cannot live with."""

    def __init__(self, host: Host, on_end: Callable[[], None]) -> None:
        self._loop, self._report, self._on_end = host.loop, host.report, on_end
        self._tally = Tally()
        self.is_fatal = False

    def install(self) -> None:
        """Take what this process would only print."""
        self._loop.set_exception_handler(self._of_loop)
        threading.excepthook = self._of_thread
        sys.unraisablehook = self._of_object

    def note(self, where: str, error: BaseException, is_fatal: bool = False) -> None:
        """For the loop's thread."""
        frames = traceback.extract_tb(error.__traceback__)
        at = f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else where
        count = self._tally.add(time.monotonic(), at)
        if count or is_fatal:
            fields = {"where": where, "at": at, "error": f"{type(error).__name__}: {error}"[:500], "count": count}
            self._report(Report("daemon.fault", fields, "error"))
        if is_fatal:
            self.is_fatal = True
            self._on_end()

    def _of_loop(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        what = str(context.get("message", ""))
        self.note(what, context.get("exception") or RuntimeError(what))

    def _of_thread(self, given: threading.ExceptHookArgs) -> None:
        name = given.thread.name if given.thread is not None else "a thread"
        self._from_anywhere(name, given.exc_value or RuntimeError(name), True)

    def _of_object(self, given: Any) -> None:
        what = given.err_msg or "while an object was freed"
        self._from_anywhere(str(what), given.exc_value or RuntimeError(str(what)), False)

    def _from_anywhere(self, where: str, error: BaseException, is_fatal: bool) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended before
            self._loop.call_soon_threadsafe(self.note, where, error, is_fatal)
