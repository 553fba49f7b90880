"""The clock that one node reads: monotonic, with a zero and a pace of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class HostClock:
    """`offset_s`: what it shows at time 0. `pace`: its seconds in a second; what a quartz does is far closer to 1."""

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
