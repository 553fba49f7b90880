"""What a daemon tells of its GPUs while their driver answers, and when it does not. The driver is simulated."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from dflowd.observe import gpus
from dflowd.observe.gpus import GpuWatch
from dflowd.process.host import Host
from tests.support.until import until_async

DEADLINE_S = 30.0  # of a hang
GPU: dict[str, Any] = {"fell_off": False, "name": "NVIDIA H100", "memory_used": 500}


async def until(condition: Callable[[], bool]) -> None:
    await until_async(condition, DEADLINE_S)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "LOOK_S", 0.001)


def here() -> Host:
    return Host(asyncio.get_running_loop(), print, print)


async def test_a_driver_that_hangs_holds_nobody_up_and_leaves_its_last_facts() -> None:
    """A GPU that has failed may keep the driver busy for minutes: who asks meanwhile is told how old the facts are."""
    answers, hangs, wakes = [GPU], threading.Event(), threading.Event()

    def ask() -> list[dict[str, Any]]:
        if hangs.is_set():
            wakes.wait(DEADLINE_S)
        return answers

    watch = GpuWatch(here(), ask, print, print)
    watch.start()
    await until(lambda: bool(watch.rows()))
    hangs.set()
    await until(lambda: watch.rows()[0]["age_s"] > 0.1)
    assert watch.rows()[0]["memory_used"] == 500
    watch.close()
    wakes.set()


async def test_a_driver_that_tells_nothing_any_more_leaves_its_last_facts() -> None:
    """As where the last GPU of a host fell off, and the library cannot be opened."""
    answers = [[GPU]]
    watch = GpuWatch(here(), lambda: answers.pop() if answers else [], print, print)
    watch.start()
    await until(lambda: bool(watch.rows()) and watch.rows()[0]["age_s"] > 0.1)
    assert [row["name"] for row in watch.rows()] == ["NVIDIA H100"]
    watch.close()


async def test_who_has_no_gpu_starts_nothing() -> None:
    """A watch that is not started has no thread, and no facts."""
    before = threading.active_count()
    watch = GpuWatch(here(), lambda: [GPU], print, print)
    assert watch.rows() == []
    assert threading.active_count() == before


async def test_a_gpu_that_falls_off_is_told_once_and_so_is_its_return() -> None:
    """Whoever runs engines on it stops with the first sign, and starts with the second."""
    told: list[tuple[str, int]] = []
    gone = [GPU, GPU | {"fell_off": True}]
    answers = [[GPU, GPU], gone, gone, [GPU], [GPU, GPU], [GPU]]  # some drivers list it no more
    watch = GpuWatch(
        here(),
        lambda: answers.pop(0) if answers else [],
        lambda gpu: told.append(("lost", gpu)),
        lambda gpu: told.append(("back", gpu)),
    )
    watch.start()
    await until(lambda: len(told) > 2)
    watch.close()
    assert told == [("lost", 1), ("back", 1), ("lost", 1)]
