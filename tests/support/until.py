"""Waiting in tests: for a condition, by a deadline, with a story when it does not come true."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
LOOK_S = 0.02  # between two looks; what is awaited takes longer


def until(condition: Callable[[], T], deadline_s: float, story: Callable[[], str] = str) -> T:
    """The first true value of `condition`. Raises AssertionError with the story when none comes in time.

    Deadlines are generous: they bound a hang, and say nothing about how fast the thing is.
    """
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            name = getattr(condition, "__name__", "condition")
            raise AssertionError(f"not within {deadline_s:g} s: {name}, last {value!r}\n{story()}")
        time.sleep(LOOK_S)


async def until_async(condition: Callable[[], object], deadline_s: float, story: Callable[[], object] = str) -> None:
    """As `until`, while the event loop goes on with what is awaited."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, story()
        await asyncio.sleep(LOOK_S)
