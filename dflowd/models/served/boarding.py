"""Who samples together: calls whose completions come from the same weights at the same temperature, as many as there is
room for, in the order in which they came.

One that needs other weights waits until those aboard are done, and nobody passes it: so it waits for what was begun and
for nothing else. Whoever waits does a part of what the others need whenever it has the baton (jobs/baton.py).
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Hashable, Iterator


class Boarding:
    """For one engine. `kind`: what all who are aboard have in common."""

    def __init__(self) -> None:
        self._kind: Hashable = None
        self._aboard = 0
        self._waiting: deque[object] = deque()

    @contextlib.contextmanager
    def boarded(self, kind: Hashable, has_room: Callable[[], bool], go_on: Callable[[], None]) -> Iterator[None]:
        """Wait until it may come aboard, and be there. `has_room`: whether there is some beside those aboard; where
        nobody is there always is. `go_on`: helps them on and lets others have the baton; what it raises ends it."""
        me = object()
        self._waiting.append(me)
        try:
            while self._waiting[0] is not me or (self._aboard and not (kind == self._kind and has_room())):
                go_on()
        finally:
            self._waiting.remove(me)
        self._kind = kind
        self._aboard += 1
        try:
            yield
        finally:
            self._aboard -= 1
