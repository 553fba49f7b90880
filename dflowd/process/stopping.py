"""From a signal to the end of the process: asked to stop, a daemon has ended by its time, whatever holds it up.

SIGTERM and Ctrl-C are taken from the process's first lines on, and SIGHUP, which a closed terminal sends, as well.
While the daemon starts they end it at once: nobody knows of it yet, and what a kill may leave on disk a stop may. Then
the first one asks it to leave, and a thread counts the time: a loop that waits for a disk, or a library that waits for
a socket, cannot outlast it.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from select import select
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
EXIT_FORCED = 128 + signal.SIGTERM
SAME_S = 0.3  # `timeout` tells a process and then its group, a terminal's kernel and shell each say that it closes
CLOSING_S = 1.5  # of the time to leave, for closing sockets and children
LAST_WORDS_S = 0.3  # for telling that time is up, to a disk that may be what holds it up


class StopSignals:
    """Made once, in the main thread, before anything that takes time. `clock` tells seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._came = os.eventfd(0, os.EFD_CLOEXEC)
        self._is_serving = False
        self._clock, self._taken_at = clock, -math.inf
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has it
                signal.signal(number, self._on_signal)

    def serve(self, leave: Callable[[], object], patience_s: float, on_overdue: Callable[[str], object]) -> None:
        """From now on the first signal calls `leave`, and the process ends by `patience_s` later, but is given
        CLOSING_S; a second one ends it at once, with EXIT_FORCED. `on_overdue` is told where the main thread is when
        the time is up. Both are called in another thread."""
        threading.Thread(target=self._watch, args=(leave, patience_s, on_overdue), name="stop", daemon=True).start()
        self._is_serving = True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._is_serving:
            os._exit(0)
        now = self._clock()  # once: whenever this calls something, another signal may be taken within it
        if now < self._taken_at + SAME_S:
            return
        self._taken_at = now
        os.eventfd_write(self._came, 1)

    def _watch(self, leave: Callable[[], object], patience_s: float, on_overdue: Callable[[str], object]) -> None:
        select([self._came], [], [])  # goes on after a signal to this thread, as reading an eventfd does not
        count = os.eventfd_read(self._came)
        until = time.monotonic() + max(patience_s, CLOSING_S)
        if count == 1:
            leave()
            if not select([self._came], [], [], max(0.0, until - LAST_WORDS_S - time.monotonic()))[0]:
                telling = threading.Thread(target=on_overdue, args=(_place_of_main_thread(),), daemon=True)
                telling.start()
                telling.join(LAST_WORDS_S)
                os._exit(0)
        os._exit(EXIT_FORCED)


def _place_of_main_thread() -> str:
    """Where it is in this package, such as `slots/process.py:101`."""
    stack = traceback.extract_stack(sys._current_frames().get(threading.main_thread().ident or 0))
    ours = [frame for frame in stack if "/dflowd/" in frame.filename] or stack
    return f"{ours[-1].filename.rpartition('/dflowd/')[2]}:{ours[-1].lineno}" if ours else ""
