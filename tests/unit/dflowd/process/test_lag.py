"""How late a loop was: what monitoring asks of it, whoever asks and how often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from dflowd.process.lag import BEAT_S, LATELY_S, LagMeter


class Loop:
    """A loop whose time and alarms are the test's."""

    def __init__(self) -> None:
        self.now = 100.0
        self.beat: Callable[[], Any] = lambda: None

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], Any]) -> None:
        self.beat = callback


def test_the_worst_of_lately_is_told_until_it_is_old() -> None:
    """Two that scrape at different times see the same; a stall an hour ago says nothing of now."""
    loop = Loop()
    meter = LagMeter(cast(asyncio.AbstractEventLoop, loop))
    meter.start()

    def turn(seconds: float) -> None:
        loop.now += seconds
        loop.beat()

    turn(BEAT_S + 2.0)
    assert 1.9 < meter.worst_lately() < 2.1
    assert 1.9 < meter.worst_lately() < 2.1
    assert 1.9 < meter.take(loop.now) < 2.1
    assert 1.9 < meter.worst_lately() < 2.1
    for _ in range(int(2 * LATELY_S / BEAT_S) + 2):
        turn(BEAT_S)
    assert meter.worst_lately() < 0.1
    loop.now += 3.0  # the beat itself waits behind who asks
    assert meter.worst_lately() > 2.5
