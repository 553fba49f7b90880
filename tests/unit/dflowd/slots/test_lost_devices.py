"""What becomes of a slot whose GPU fails: its work goes back at once, and nothing more is begun there.

GPUs are simulated: the engines emulated ones, with real children.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from dflow_protocols.events import Broke, Finished, SlotsChanged
from dflowd.slots import supervisor
from dflowd.slots.devices import is_lost
from tests.unit.dflowd.slots.bench import Bench, bench, chain


def told(it: Bench) -> list[SlotsChanged]:
    """What the node hears of its slots."""
    return [event for event in it.events if isinstance(event, SlotsChanged)]


async def test_a_gpu_that_falls_off_drains_its_slot_and_no_other(tmp_path: Path) -> None:
    """What ran there is given back before its child is gone: a process may wait for the driver for ever."""
    async with bench(tmp_path, generate_s=600.0, gpus=2) as it:
        params = await it.init()
        first, second = it.start(chain(params)), it.start(chain(params), "p1")
        await it.until(lambda: all(slot["task"] for slot in it.supervisor.standing()["slots"]))
        (struck,) = (slot for slot in it.supervisor.standing()["slots"] if slot["slot"] == 1)
        it.supervisor.drain(1, "fell off the bus")
        lost = first if struck["task"].endswith("p0") else second
        end = await it.answer(lost)
        assert isinstance(end, Broke)
        assert (end.failed.kind, end.failed.error) == ("stopped", "GPU 1 fell off the bus")
        assert told(it) == [SlotsChanged(1, "slot 1: GPU 1 fell off the bus")]
        assert it.events.index(told(it)[0]) < it.events.index(end)
        (report,) = (report for report in it.reports if report.level in ("error", "warning"))
        assert report.name == "slot.drained"
        assert report.fields == {"slot": 1, "device": "GPU 1", "why": "fell off the bus"}
        it.start(chain(params), "p2")
        await it.until(lambda: not it.supervisor.standing()["slots"][1]["pid"])
        slots = it.supervisor.standing()["slots"]
        assert slots[0]["task"]
        assert not slots[1]["task"]
        assert it.supervisor.standing()["waiting"] == 1
        it.supervisor.drain(1, "fell off the bus")  # the driver says so again
        assert len(told(it)) == 1


async def test_a_host_without_a_slot_that_works_refuses_what_needs_one(tmp_path: Path) -> None:
    """For what holds for all its tasks: the node then leaves them to others, and blames none."""
    async with bench(tmp_path, gpus=1, host_slots=1) as it:
        params = await it.init()
        it.supervisor.drain(0, "fell off the bus")
        end = await it.answer(it.start(chain(params)))
        assert isinstance(end, Broke)
        assert end.failed.kind == "stopped"
        assert "GPU 0 fell off the bus" in end.failed.error
        it.supervisor.restore(0)
        assert isinstance(await it.answer(it.start(chain(params))), Finished)
        assert [event.usable for event in told(it)] == [0, 1]


async def test_the_last_words_of_an_engine_drain_its_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver may still call a GPU well that no process can open: engine after engine would die of it."""
    words = "RuntimeError: CUDA error: no CUDA-capable device is detected"
    said = f"{words}\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions."  # what PyTorch ends in
    (tmp_path / "without_device.py").write_text(f"raise SystemExit({said!r})\n")
    monkeypatch.setattr(supervisor, "ENGINE_MODULE", "without_device")
    async with bench(tmp_path, gpus=1, environment={"PYTHONPATH": str(tmp_path)}) as it:
        end = await it.answer(it.start(chain(())))
        assert isinstance(end, Broke)
        assert end.failed.kind == "stopped"
        assert [event.usable for event in told(it)] == [0]
        assert words in it.supervisor.drained()[0]["why"]


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        ("AcceleratorError: CUDA error: uncorrectable ECC error encountered (engine.py:3)", True),
        ("RuntimeError: CUDA error: CUDA-capable device(s) is/are busy or unavailable", False),
        ("RuntimeError: CUDA error: an illegal memory access was encountered", False),
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", False),
    ],
)
def test_only_what_no_fresh_process_would_mend_is_a_lost_device(error: str, *, lost: bool) -> None:
    """An illegal address is a task's fault as likely as a device's: it costs an engine, and no slot."""
    assert is_lost(error) is lost
