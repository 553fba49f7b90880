"""Journals: which things changed lately, for those who keep something derived from them.

A table that others derive from notes the key of each change. A reader keeps its own place and asks what came since; so
what it derives costs as much as changed, and nobody has to tell it. Where too much came it is told that it must begin
anew, which bounds a journal that nobody reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

K = TypeVar("K")

MAX_KEYS = 4_096  # of a journal; a reader that is further behind derives all again
UNREAD = -1  # the place of a reader that has derived nothing yet


class Journal(Generic[K]):
    """See the module. `end`: the place of a reader that knows all."""

    def __init__(self) -> None:
        self._first = 0
        self._keys: list[K] = []

    @property
    def end(self) -> int:
        return self._first + len(self._keys)

    def note(self, key: K) -> None:
        """What belongs to this key is not as it was."""
        if len(self._keys) >= MAX_KEYS:
            self.note_all()
        self._keys.append(key)

    def note_all(self) -> None:
        """Anything may be not as it was."""
        self._first += len(self._keys) + 1
        self._keys.clear()

    def since(self, place: int) -> Sequence[K] | None:
        """The keys of all changes that came after `place`, some of them perhaps twice; None: any."""
        return None if place < self._first else self._keys[place - self._first :]
