"""What a slot takes: by what a work needs of it, whatever its devices and processes are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dflow_protocols.events import Start
from dflow_protocols.names import RunId, TaskKey, part_of
from dflow_protocols.work import BlockWork, ChainWork, Done, Made, SliceWork, Work
from dflowd.slots.devices import Devices
from dflowd.slots.open_call import OpenCall
from dflowd.slots.settings import RunBrief, SupervisorSettings
from dflowd.slots.slot import Slot

CHAIN, BLOCK, SLICE = (
    ChainWork(0, ("roll",), 0, ()),
    BlockWork(0, "learn", 0, 1, (), (), ()),
    SliceWork(0, "learn", 0, 1, 2, (), 1),
)
RUN, OTHER = RunId("ab" * 16), RunId("cd" * 16)


def call(number: int, work: Work, engine: str = "torch", fresh: bool = False, run: RunId = RUN) -> OpenCall:
    asked = Start(number, run, TaskKey(0, "roll", part_of("p0")), work, fresh)
    return OpenCall(asked, RunBrief(b"", "", "", "", engine))


def slot(*running: OpenCall, engine: str = "torch", slots: int = 1) -> Slot:
    settings = SupervisorSettings(slots, Devices((), 1), Path(), {}, 15.0, 300.0)
    return Slot(0, settings, engine, calls={each.id: each for each in running})


def shared(most: int) -> ChainWork:
    return replace(CHAIN, at_once=most)


@pytest.mark.parametrize("work", [CHAIN, BLOCK, SLICE])
@pytest.mark.parametrize("other", [CHAIN, BLOCK, SLICE])
def test_a_slot_does_one_work_at_a_time_unless_it_is_told_more(work: Work, other: Work) -> None:
    """Two of them on one device would only wait for each other, or not fit its memory."""
    assert slot().takes(call(2, work))
    assert not slot(call(1, other)).takes(call(2, work))


def test_a_slot_that_samples_several_chains_at_once_takes_no_gradient_beside_them() -> None:
    """A batch of chains shares one model; a gradient needs the memory that their caches fill."""
    wide = shared(3)
    assert slot(call(1, wide), call(2, wide)).takes(call(3, wide))
    assert not slot(call(1, wide), call(2, wide), call(3, wide)).takes(call(4, wide))
    assert not slot(call(1, wide)).takes(call(2, BLOCK))
    assert not slot(call(1, BLOCK)).takes(call(2, wide))


def test_what_is_to_be_alone_is_alone() -> None:
    """A task on which an engine died would take others with it; and it must not come to those that run."""
    assert not slot(call(1, shared(3))).takes(call(2, CHAIN))
    assert not slot(call(1, CHAIN)).takes(call(2, shared(3)))


def test_two_runs_have_no_batch_together() -> None:
    """An engine has one run's models and code open, and closes them for another's."""
    assert not slot(call(1, shared(3))).takes(call(2, shared(3), run=OTHER))


def test_a_call_that_needs_another_child_waits_until_the_slot_is_empty() -> None:
    """A child is ended for it, and whatever runs there would end with it."""
    wide = shared(2)
    for wanted in (call(2, wide, engine="emulated"), call(2, wide, fresh=True)):
        assert slot().takes(wanted)
        assert not slot(call(1, wide)).takes(wanted)


def test_each_call_of_a_slot_has_a_progress_of_its_own() -> None:
    """One that stands still is found though the others move."""
    here = slot(call(1, shared(2)), call(2, shared(2)))
    for number, each in here.calls.items():
        each.beat(number, 0.0)
    here.calls[2].beat(5, 100.0)
    here.calls[1].beat(1, 100.0)
    assert [each.still_s(100.0) for each in here.calls.values()] == [100.0, 0.0]


@pytest.mark.parametrize(("slots", "seconds", "most"), [(1, 10.0, 2), (2, 10.0, 1), (1, 0.002, 6), (2, 0.002, 6)])
def test_a_long_partition_lies_ready_behind_another_where_no_other_slot_would_take_it(
    slots: int, seconds: float, most: int
) -> None:
    """What is in a slot's hand is not taken by one that is free first; short ones are worth no wait."""
    here = slot(call(1, CHAIN), slots=slots)
    here.end(here.calls[1], Done((Made("roll", (), seconds=seconds),)))
    for number in range(2, 2 + most):
        assert here.takes(call(number, CHAIN))
        here.calls[number] = call(number, CHAIN)
    assert not here.takes(call(9, CHAIN))
