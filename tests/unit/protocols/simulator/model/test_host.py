"""A pretended process: in which order its loop takes what waits."""

from __future__ import annotations

from random import Random
from typing import Any, cast

from dflow_protocols.events import Event, NotPersisted, Persist, Tick
from dflow_protocols.simulator.model.disk import Disk, Writes
from dflow_protocols.simulator.model.host import Process
from dflow_protocols.simulator.model.schedule import Life, Schedule


def test_that_a_write_failed_is_taken_before_whatever_waits() -> None:
    """Who asks for it, and came in the meantime, would be answered as if it lay on the disk."""
    schedule, disk, taken, none = Schedule(), Disk(), list[Event](), cast(Any, None)
    life = Life(schedule, Random(1), lambda event: process.post(event))

    def turn() -> None:
        is_first = not taken
        taken.append(process.inbox.popleft())
        if is_first:
            process.post(Tick())
            assert not process.write(Persist("runs/a", b"1"))

    process = Process(none, life, none, none, none, none, Writes(life, disk), turn)
    disk.fill()
    process.post(Tick())
    schedule.run(1.0)
    assert taken == [Tick(), NotPersisted("runs/a"), Tick()]
