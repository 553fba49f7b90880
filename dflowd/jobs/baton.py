"""Baton: several calls in one process, each in a thread of its own, of which one at a time goes on.

What an engine holds (models, data, a batch that is being sampled) is touched by who has the baton alone, so it needs no
locks. A call gives the baton up where it says so and nowhere else: between two passes of a batch that others are aboard
of too, and while its daemon looks for room. Who asks first has it first.

A call's seconds are those that it took of the slot: all while it has the baton, of a pass its share with those aboard.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NoReturn, TypeVar

from dflowd.slots.doing import NOTHING, Board, Doing

from .failures import one_line

T = TypeVar("T")

NOBODY = 0  # calls are numbered from 1; a process that has but one thing to do needs no number
EXIT_SHARED = 70  # a pass failed that several calls shared


def _end_process(error: BaseException) -> NoReturn:
    """What an engine's daemon reads of it is the last line."""
    print(one_line(error), file=sys.stderr, flush=True)
    os._exit(EXIT_SHARED)


class _FairLock:
    """A lock that goes to whoever has waited longest."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._is_held = False
        self._waiting: deque[threading.Lock] = deque()

    def take(self) -> None:
        with self._guard:
            if not self._is_held:
                self._is_held = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()  # it is handed over as it is

    def pass_on(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._is_held = False


@dataclass(slots=True)
class _Call:
    """What is kept of a call while others have the baton."""

    seconds: float = 0.0
    doing: Doing = NOTHING


@dataclass(slots=True)
class Baton:
    """Of one process. `board`: what it shows is of who has the baton. `end`: ends the process."""

    board: Board = field(default_factory=Board)
    end: Callable[[BaseException], None] = _end_process
    holder: int = NOBODY  # the call that has the baton
    _lock: _FairLock = field(default_factory=_FairLock)
    _calls: dict[int, _Call] = field(default_factory=lambda: {NOBODY: _Call()})
    _aboard: list[int] = field(default_factory=list)
    _since: float = field(default_factory=time.perf_counter)  # the holder's seconds are counted up to here

    @contextlib.contextmanager
    def held(self, call: int) -> Iterator[None]:
        """The life of a call: it waits for the baton, and ends with it."""
        self._calls[call] = _Call()
        self._take(call)
        try:
            yield
        finally:
            self._settle()
            del self._calls[call]
            self.holder = NOBODY
            self.board.take(())
            self._lock.pass_on()

    def pass_on(self) -> None:
        """Let all go first who wait for the baton."""
        with self.resting():
            pass

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """The call waits for somebody else: others go on meanwhile."""
        call = self.holder
        self._settle()
        self._calls[call].doing = self.board.read()
        self.holder = NOBODY
        self._lock.pass_on()
        try:
            yield
        finally:
            self._take(call)

    @contextlib.contextmanager
    def aboard(self) -> Iterator[None]:
        """The call has a part in what `together` does."""
        call = self.holder
        self._aboard.append(call)
        try:
            yield
        finally:
            self._aboard.remove(call)

    def together(self, doing: Doing, work: Callable[[], T]) -> T:
        """One pass, for all who are aboard. What it raises is the call's own where it is alone there. Else nobody can
        tell whose doing it was, or who has the baton only helps: the process ends, and what it did last tells."""
        sharing = tuple(self._aboard) or (self.holder,)
        self._settle()
        own = self.board.read()
        self.board.take(sharing)
        self.board.write(doing)
        try:
            return work()
        except Exception as error:
            if sharing != (self.holder,):
                self.end(error)
            raise
        finally:
            self._settle(sharing)
            self.board.take((self.holder,))
            self.board.write(own)

    def drift(self, doing: Doing, seconds: float) -> None:
        """A pass that needs nobody's hands: so long passes for all who are aboard, while any call may go on. It costs
        them what of it no other call had the baton."""
        self.board.take(tuple(self._aboard))
        self.board.write(doing)
        with self.resting():
            time.sleep(seconds)

    def seconds(self) -> float:
        """Of the slot, that the call took so far."""
        self._settle()
        return self._calls[self.holder].seconds

    def _take(self, call: int) -> None:
        self._lock.take()
        self._settle(tuple(self._aboard))  # who drifts had the slot while nobody had the baton
        self.holder = call
        self.board.take((call,) if call else ())
        self.board.write(self._calls[call].doing)

    def _settle(self, calls: tuple[int, ...] = ()) -> None:
        """Count the time up to now: the holder's, or that of all who shared it."""
        now = time.perf_counter()
        for call in calls or (self.holder,):
            self._calls[call].seconds += (now - self._since) / (len(calls) or 1)
        self._since = now
