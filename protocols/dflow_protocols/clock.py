"""A node's own time: it stands still while the process sleeps.

Who was stopped for half a minute (SIGSTOP, a paused virtual machine) finds on waking that everything it waited for is
overdue: every other node looks silent, every lease expired, every turn its own. None of that is evidence. So the node
counts only time in which it could have heard something.
"""

from __future__ import annotations

import math


class NodeClock:
    """Turns the driver's time into the node's own. Both never go back."""

    def __init__(self) -> None:
        self.slept_s = 0.0  # in all
        self._read_at = -math.inf  # in the driver's time: until then it was awake

    def read(self, now: float, deadline: float, grace_s: float) -> tuple[float, float]:
        """The own time at the driver's `now`, and how long the process slept just before it; 0 if it did not.

        deadline: when, in the driver's time, the node was to be woken at the latest. Up to `grace_s` later it is
        merely late, which is no sleep. So much passes in any case: else time would stand still at a node that is
        always late, and it would never find anybody dead.
        """
        late_s = now - max(deadline, self._read_at)
        self._read_at = now
        slept_s = max(0.0, late_s - grace_s)
        self.slept_s += slept_s
        return now - self.slept_s, slept_s

    def outside(self, own: float) -> float:
        """The first time of the driver's at which an own time has come, however the two round."""
        then = own + self.slept_s
        while then - self.slept_s < own:
            then = math.nextafter(then, math.inf)
        return then
