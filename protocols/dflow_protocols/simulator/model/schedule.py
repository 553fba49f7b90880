"""Virtual time: what happens when, in one order for one seed; and a node's share of it, which ends with its life."""

from __future__ import annotations

import gc
import heapq
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from ...events import Event

INBOX_S = 0.002  # how long an event waits at most until a daemon's loop comes to it
RARELY = 500_000  # objects that are made and not freed, from one search for rings to the next; Python's own is 700


class Schedule:
    """A discrete-event clock. What is due at the same time happens in the order in which it was scheduled."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None], Life | None]] = []
        self._order = 0

    def after(self, seconds: float, then: Callable[[], None], life: Life | None = None) -> None:
        """`life`: in which alone it happens."""
        self._order += 1
        heapq.heappush(self._heap, (self.now + seconds, self._order, then, life))

    def run(self, deadline_s: float, until: Callable[[], bool] | None = None) -> bool:
        """Live on until `until()` holds (asked before each event) or `deadline_s` has passed from now. Whether it
        holds."""
        end, heap, pop = self.now + deadline_s, self._heap, heapq.heappop
        with _rings_seldom_sought():
            while heap and heap[0][0] <= end:
                if until is not None and until():
                    return True
                self.now, _, then, life = pop(heap)
                if life is None or not life.is_over:
                    then()
        self.now = end if until is None else self.now
        return until is not None and until()


@contextmanager
def _rings_seldom_sought() -> Iterator[None]:
    """Among the millions of things that a large mesh keeps that took a fifth of the time; few of them end in rings."""
    thresholds = gc.get_threshold()
    gc.set_threshold(RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


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
        self._schedule.after(seconds, then, self)

    def tell(self, event: Event) -> None:
        """What slots and store tell waits in the node's inbox for a moment, in order. What the node gives up meanwhile
        is told all the same: it was true when it was posted."""
        self._inbox_until = max(self._inbox_until, self.now + self._inbox.uniform(0.0, INBOX_S))
        self.after(self._inbox_until - self.now, lambda: self._deliver(event))

    def end(self) -> None:
        self.is_over = True
