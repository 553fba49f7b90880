"""The main thread: what has to run in it, whichever thread asks.

A library may keep things by thread, such as the streams of a device, and so wants to be called by the one that loaded
it. The main thread does one thing after another that it is asked for, and else nothing.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

ERRANDS: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
"""What the main thread is to do next: a process has one, and whoever owns it serves this."""


def in_main_thread(work: Callable[[], T]) -> T:
    """What `work` gives, or raises."""
    if threading.current_thread() is threading.main_thread():
        return work()
    done: Future[T] = Future()

    def errand() -> None:
        try:
            result = work()
        except BaseException as error:  # who asked has to hear of an exit, too
            done.set_exception(error)
        else:
            done.set_result(result)

    ERRANDS.put(errand)
    return done.result()
