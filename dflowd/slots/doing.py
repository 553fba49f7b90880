"""What an engine is doing, in memory that its daemon reads however the engine ends.

A message would be lost with a process that exits in its next line, and would not come from one whose interpreter is
held up in a library that never comes back. So the engine writes a few words into shared memory
before it does something; who ends the engine, or finds it ended, reads them. The words lie in one of two halves and a
byte says in which: at no moment are they half written.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass

import msgpack

HALF_BYTES = 4096
MOST_CHARACTERS = 400  # of each text
MOST_CALLS = 16
assert 2 * 4 * MOST_CHARACTERS + 9 * MOST_CALLS < HALF_BYTES - 32, "a character may take 4 bytes, a number 9"


@dataclass(frozen=True, slots=True)
class Doing:
    """`what`: in words that may follow `while`, such as `it loaded model policy`. `calls`: whose doing it is, by their
    numbers; none: nobody can tell."""

    stage: str = ""
    what: str = ""
    calls: tuple[int, ...] = ()


NOTHING = Doing()


class Board:
    """The memory. `fd`: of a file that both ends map; without one it is this process's own."""

    def __init__(self, fd: int = -1) -> None:
        if fd >= 0:
            os.ftruncate(fd, 1 + 2 * HALF_BYTES)
        self._memory = mmap.mmap(fd, 1 + 2 * HALF_BYTES)
        self._calls: tuple[int, ...] = ()

    def take(self, calls: tuple[int, ...]) -> None:
        """What is written from now on is the doing of these calls."""
        self._calls = calls

    def write(self, doing: Doing) -> None:
        """`doing.calls` is what `take` said last."""
        texts = [doing.stage[:MOST_CHARACTERS], doing.what[:MOST_CHARACTERS]]
        words = msgpack.packb([*texts, self._calls[:MOST_CALLS]], unicode_errors="replace")
        half = 1 - self._memory[0] % 2
        place = 1 + half * HALF_BYTES
        self._memory[place : place + 2 + len(words)] = len(words).to_bytes(2, "big") + words
        self._memory[0] = half

    def read(self) -> Doing:
        """NOTHING where nothing was written, or what no engine of this installation writes."""
        place = 1 + self._memory[0] % 2 * HALF_BYTES
        size = int.from_bytes(self._memory[place : place + 2], "big")
        if not 0 < size <= HALF_BYTES - 2:
            return NOTHING
        try:
            stage, what, calls = msgpack.unpackb(self._memory[place + 2 : place + 2 + size])
            return Doing(str(stage), str(what), tuple(int(call) for call in calls))
        except (ValueError, TypeError, msgpack.UnpackException):
            return NOTHING

    @contextlib.contextmanager
    def showing(self, doing: Doing) -> Iterator[None]:
        """While the block lasts; then what it was before."""
        before = self.read()
        self.write(doing)
        try:
            yield
        finally:
            self.write(before)
