"""What every room is given of the process that it lives in: its loop, its clocks, and whom it tells."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from dflow_protocols.events import Event, Report


@dataclass(frozen=True, slots=True)
class Host:
    """Made once a process. `post` takes what the node must know, `report` what people may read; both are for the
    loop's thread. `wall_clock`: seconds since 1970."""

    loop: asyncio.AbstractEventLoop
    post: Callable[[Event], None]
    report: Callable[[Report], None]
    wall_clock: Callable[[], float] = time.time

    def clock(self) -> float:
        """Seconds since some start; never goes back."""
        return self.loop.time()
