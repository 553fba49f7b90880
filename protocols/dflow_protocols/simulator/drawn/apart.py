"""The same worlds in processes apart. These hash text unlike, as two hosts do: whatever follows a set's order tells two
stories."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import cpu_count, get_context, parent_process
from typing import TypeVar

T = TypeVar("T")


def twice(live: Callable[[int], T], seeds: Iterable[int]) -> Iterator[tuple[T, T]]:
    """What `live` gives for each seed, in two processes that are not one, in the order of the seeds. On all cores;
    `live` has to be a module's function, or a partial of one."""
    wanted = tuple(seeds)
    with two_sides() as (one, other):
        yield from zip(one.map(live, wanted), other.map(live, wanted), strict=True)


def _begin() -> None:
    """Of a process. Who is interrupted says so once."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    """Who is killed shuts no process down, and they hold the queue of work open for each other."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    signal.raise_signal(signal.SIGKILL)  # from a thread, amid whatever the process computes


@contextmanager
def two_sides() -> Iterator[tuple[Executor, Executor]]:
    """Two groups of fresh processes, as many in all as there are cores. What was not begun at the end never is."""
    with ExitStack() as stack:
        sides = []
        for _ in range(2):
            side = ProcessPoolExecutor(
                max_workers=max(1, cpu_count() // 2),
                mp_context=get_context("spawn"),  # a fork has its parent's hashes
                initializer=_begin,
            )
            stack.callback(side.shutdown, cancel_futures=True)
            sides.append(side)
        yield sides[0], sides[1]
