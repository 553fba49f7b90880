"""What this host's GPUs were last seen to do, and how long ago: looked at beside the event loop.

The driver may answer late, or never where a GPU has failed. So it is asked from a thread of its own, which nobody waits
for: whoever wants facts is told the last known ones with their age, and a daemon ends though that thread hangs.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

from ..process.host import Host

LOOK_S = 5.0  # between two looks, each of which opens the driver and closes it again so that a GPU can be reset

Facts = list[dict[str, Any]]


class GpuWatch:
    """Methods are for the loop's thread. Without `start` nothing is looked at, and there are no facts."""

    def __init__(
        self, host: Host, ask: Callable[[], Facts], lost: Callable[[int], None], back: Callable[[int], None]
    ) -> None:
        """`ask`: a map a GPU, in the driver's order, [] where it tells nothing. `lost`: of a GPU that fell off the bus;
        `back`: of one that answers again."""
        self._loop, self._clock, self._ask, self._lost, self._back = host.loop, host.clock, ask, lost, back
        self._closed = threading.Event()
        self._facts: Facts = []
        self._seen_s = 0.0
        self._count = 0  # of GPUs, at most so far
        self._gone: set[int] = set()

    def start(self) -> None:
        threading.Thread(target=self._watch, name="gpus", daemon=True).start()

    def close(self) -> None:
        """Look no more; a look that is under way is not waited for."""
        self._closed.set()

    def rows(self) -> Facts:
        """The last known facts, each with `age_s`. A driver that answers no more leaves them ever older."""
        age_s = round(self._clock() - self._seen_s, 1)
        return [{**gpu, "age_s": age_s} for gpu in self._facts]

    def _watch(self) -> None:
        while not self._closed.is_set():
            try:
                facts = self._ask()
            except Exception:  # whatever a driver that is not well says: the facts get old, which doctor tells
                facts = []
            with contextlib.suppress(RuntimeError):  # the loop is closed: the daemon has ended
                self._loop.call_soon_threadsafe(self._take, facts)
            self._closed.wait(LOOK_S)

    def _take(self, facts: Facts) -> None:
        if not facts or self._closed.is_set():
            return
        self._count = max(self._count, len(facts))
        self._facts, self._seen_s = facts, self._clock()
        well = {index for index, gpu in enumerate(facts) if not gpu["fell_off"]}
        before, self._gone = self._gone, set(range(self._count)) - well  # also what the driver lists no more
        for index in sorted(self._gone - before):
            self._lost(index)
        for index in sorted(before - self._gone):
            self._back(index)
