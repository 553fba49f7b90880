"""What Ctrl-C, SIGTERM and a closed terminal do to a command that has daemons of its own."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Self

from ..output import note

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAME_S = 0.3  # `timeout`, `uv run` and their like pass on what the whole process group hears: one interrupt, told twice


class Interrupts:
    """Each raises KeyboardInterrupt where the command is, but the first one where it is nearly done. A context manager.

    What the caller ignores stays ignored: `nohup dflow run SPEC &` outlives its terminal. `clock` tells seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.count = 0
        self._clock, self._taken_at = clock, -math.inf
        self._said = ""
        self._due = 0  # interrupts that raise, or are to
        self._is_shielded = False
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        self._before = {
            number: signal.signal(number, self._take)
            for number in SIGNALS
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def finishing(self, said: str) -> Iterator[None]:
        """The first interrupt ever only says this while the block lasts: what is left to do takes seconds."""
        self._said = said
        try:
            yield
        finally:
            self._said = ""

    @contextlib.contextmanager
    def shielded(self) -> Iterator[None]:
        """Interrupts take effect after the block: libraries that are half imported end in worse than a traceback."""
        self._is_shielded, before = True, self._due
        try:
            yield
        finally:
            self._is_shielded = False
        if self._due > before:
            raise KeyboardInterrupt

    def ignore(self) -> None:
        """From now on none takes effect, also while the interpreter ends: what is left is done at once by itself, and
        who presses again is told how it ended."""
        while self._before:
            signal.signal(self._before.popitem()[0], signal.SIG_IGN)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:  # a terminal that closes tells its kernel and its shell, and both tell us
            signal.signal(number, signal.SIG_IGN)
        now = self._clock()  # once: whenever this calls something, another signal may be taken within it
        if now < self._taken_at + SAME_S:
            return
        self._taken_at = now
        self.count += 1
        if self.count == 1 and self._said:
            note(self._said)
            return
        self._due += 1
        if not self._is_shielded:
            raise KeyboardInterrupt
