"""What a slot takes: by what a work needs of it, whatever its devices and processes are."""

from __future__ import annotations

from pathlib import Path

import pytest

from dflow_protocols.events import Start
from dflow_protocols.names import RunId, TaskKey, part_of
from dflow_protocols.work import BlockWork, ChainWork, SliceWork, Work
from dflowd.slots.devices import Devices
from dflowd.slots.open_call import OpenCall
from dflowd.slots.settings import Capacity, Kind, RunBrief, SupervisorSettings
from dflowd.slots.slot import Slot

CHAIN, BLOCK, SLICE = (
    ChainWork(0, ("roll",), 0, ()),
    BlockWork(0, "learn", 0, 1, (), (), ()),
    SliceWork(0, "learn", 0, 1, 2, (), 1),
)


def call(number: int, work: Work, engine: str = "torch", fresh: bool = False) -> OpenCall:
    asked = Start(number, RunId("ab" * 16), TaskKey(0, "roll", part_of("p0")), work, fresh)
    return OpenCall(asked, RunBrief(b"", "", "", engine))


def slot(capacity: Capacity, *running: OpenCall, engine: str = "torch") -> Slot:
    settings = SupervisorSettings(1, Devices((), 1), Path(), {}, 15.0, 300.0, capacity)
    return Slot(0, settings, engine, calls={each.id: each for each in running})


@pytest.mark.parametrize("work", [CHAIN, BLOCK, SLICE])
@pytest.mark.parametrize("other", [CHAIN, BLOCK, SLICE])
def test_a_slot_does_one_work_at_a_time_unless_it_is_told_more(work: Work, other: Work) -> None:
    """Two of them on one device would only wait for each other, or not fit its memory."""
    assert slot(Capacity()).takes(call(2, work))
    assert not slot(Capacity(), call(1, other)).takes(call(2, work))


def test_a_slot_that_samples_several_chains_at_once_takes_no_gradient_beside_them() -> None:
    """A batch of chains shares one model; a gradient needs the memory that their caches fill."""
    wide = Capacity(chains=3)
    assert slot(wide, call(1, CHAIN), call(2, CHAIN)).takes(call(3, CHAIN))
    assert not slot(wide, call(1, CHAIN), call(2, CHAIN), call(3, CHAIN)).takes(call(4, CHAIN))
    assert not slot(wide, call(1, CHAIN)).takes(call(2, BLOCK))
    assert not slot(wide, call(1, BLOCK)).takes(call(2, CHAIN))


def test_a_call_that_needs_another_child_waits_until_the_slot_is_empty() -> None:
    """A child is ended for it, and whatever runs there would end with it."""
    wide = Capacity(chains=2)
    for wanted in (call(2, CHAIN, engine="emulated"), call(2, CHAIN, fresh=True)):
        assert slot(wide).takes(wanted)
        assert not slot(wide, call(1, CHAIN)).takes(wanted)


def test_each_call_of_a_slot_has_a_progress_of_its_own() -> None:
    """One that stands still is found though the others move."""
    here = slot(Capacity(chains=2), call(1, CHAIN), call(2, CHAIN))
    for number, each in here.calls.items():
        each.beat(number, 0.0)
    here.calls[2].beat(5, 100.0)
    here.calls[1].beat(1, 100.0)
    assert [each.still_s(100.0) for each in here.calls.values()] == [100.0, 0.0]
    assert {each.kind for each in here.calls.values()} == {Kind.CHAIN}
