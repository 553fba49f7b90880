"""How late this process runs: what a loop that is starved or blocked makes of everything else it believes.

Two signs are taken: a beat that the loop was to call and called late, and events that waited in the driver's inbox.
"""

from __future__ import annotations

import asyncio

BEAT_S = 0.1  # a blocked loop is seen within so long; ten calls a second cost nothing
WORTH_S = 0.05  # less is what any busy machine does
TELL_EVERY_S = 1.0  # one sign a second: it is the worst of that second
LATELY_S = 60.0  # of which the worst is remembered, and of as long before that


class LagMeter:
    """Measures one loop from `start` to `stop`. Seconds throughout."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._worst_s = 0.0
        self._tell_at = 0.0
        self._lately = [0.0, 0.0]  # the worst of this minute, and of the last one
        self._minute_ends = loop.time() + LATELY_S
        self._due = float("inf")  # when the next beat is
        self._beat: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._due = self._loop.time() + BEAT_S
        self._beat = self._loop.call_at(self._due, self._on_beat)

    def stop(self) -> None:
        if self._beat is not None:
            self._beat.cancel()

    def note(self, late_s: float) -> None:
        self._worst_s = max(self._worst_s, late_s)
        self._lately[0] = max(self._lately[0], late_s)

    def worst_lately(self) -> float:
        """Of the last one to two minutes; asking changes nothing."""
        return max(*self._lately, self._loop.time() - self._due, 0.0)

    def take(self, now: float) -> float:
        """The worst since it was last taken, if that is worth telling and time to; else 0."""
        self.note(now - self._due)  # the beat itself may still wait behind what wants to know
        if self._worst_s < WORTH_S or now < self._tell_at:
            return 0.0
        worst_s, self._worst_s = self._worst_s, 0.0
        self._tell_at = now + TELL_EVERY_S
        return worst_s

    def _on_beat(self) -> None:
        now = self._loop.time()
        self.note(now - self._due)
        if now >= self._minute_ends:
            self._lately, self._minute_ends = [0.0, self._lately[0]], now + LATELY_S
        self.start()
