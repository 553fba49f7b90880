"""Lets those who wait for a run look again when some run moved."""

from __future__ import annotations

import asyncio
import contextlib


class News:
    """For one loop's thread."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def publish(self) -> None:
        """Whoever waits now looks again."""
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self, timeout_s: float) -> None:
        """Until the next `publish` after this call, or so long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._next.wait(), timeout_s)
