"""Time on one machine: the clock that its node reads, and how late its process runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...events import Lagged

WORTH_S = 0.05  # less is not told (dflowd/process/lag.py)
TELL_EVERY_S = 1.0  # one sign a second: the worst of that second


@dataclass
class HostClock:
    """Monotonic. `offset_s`: what it shows at time 0. `pace`: its seconds in a second; a quartz is far closer to 1."""

    offset_s: float
    pace: float = 1.0

    def read(self, now: float) -> float:
        return self.offset_s + self.pace * now

    def when(self, shown: float) -> float:
        """The first time at which it shows so much, however the two round."""
        then = (shown - self.offset_s) / self.pace
        while self.read(then) < shown:
            then = math.nextafter(then, math.inf)
        return then

    def run_at(self, pace: float, now: float) -> None:
        """At another pace from now on; it jumps nowhere."""
        self.offset_s, self.pace = self.read(now) - pace * now, pace

    def leap(self, seconds: float) -> None:
        """Forward, as when a virtual machine was moved: back it never goes."""
        self.offset_s += seconds


class Lateness:
    """One life's: what happens waits in it before it is handled, and now and then it tells its node so."""

    def __init__(self) -> None:
        self.waiting = 0  # events
        self._until = 0.0  # when the last event that waits is handled
        self._worst_s = 0.0
        self._tell_at = 0.0

    def wait(self, now: float, lag_s: float) -> float:
        """How long what happens now has to wait, on a machine that is so late: nothing overtakes."""
        if not lag_s and self._until <= now:
            return 0.0
        self._until = max(self._until, now + lag_s)
        self.waiting += self._until > now
        return self._until - now

    def note(self, waited_s: float) -> None:
        """An event is handled that waited."""
        self.waiting -= 1
        self._worst_s = max(self._worst_s, waited_s)

    def take(self, now: float) -> Lagged | None:
        """What to tell the node before its next event, if there is something."""
        if self._worst_s < WORTH_S or now < self._tell_at:
            return None
        told, self._worst_s, self._tell_at = Lagged(self._worst_s), 0.0, now + TELL_EVERY_S
        return told
