"""Virtual time: what happens when, in one order for one seed; and a node's share of it, which ends with its life."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random

from ...events import Event

INBOX_S = 0.002  # how long an event waits at most until a daemon's loop comes to it


class Schedule:
    """A discrete-event clock. What is due at the same time happens in the order in which it was scheduled."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0

    def after(self, seconds: float, then: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._heap, (self.now + seconds, self._order, then))

    def run(self, deadline_s: float, until: Callable[[], bool] | None = None) -> bool:
        """Live on until `until()` holds (asked before each event) or `deadline_s` has passed from now. Whether it
        holds."""
        end = self.now + deadline_s
        while self._heap and self._heap[0][0] <= end:
            if until is not None and until():
                return True
            self.now, _, then = heapq.heappop(self._heap)
            then()
        self.now = end if until is None else self.now
        return until is not None and until()


class Life:
    """One life of a node, from its start to kill -9: what is put off in it never happens once it is over."""

    def __init__(self, schedule: Schedule, inbox: Random, deliver: Callable[[Event], None]) -> None:
        """`inbox`: draws how long an event waits there; `deliver`: hands it to the node then."""
        self.is_over = False
        self._schedule = schedule
        self._inbox = inbox
        self._deliver = deliver
        self._inbox_until = 0.0  # when the last event that waits there is due

    @property
    def now(self) -> float:
        return self._schedule.now

    def after(self, seconds: float, then: Callable[[], None]) -> None:
        self._schedule.after(seconds, lambda: None if self.is_over else then())

    def tell(self, event: Event) -> None:
        """What slots and store tell waits in the node's inbox for a moment, in order. What the node gives up meanwhile
        is told all the same: it was true when it was posted."""
        self._inbox_until = max(self._inbox_until, self.now + self._inbox.uniform(0.0, INBOX_S))
        self.after(self._inbox_until - self.now, lambda: self._deliver(event))

    def end(self) -> None:
        self.is_over = True
