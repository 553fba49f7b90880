"""Virtual time: one order for one seed, and nothing of a life that is over."""

from __future__ import annotations

import gc
from functools import partial
from random import Random

import pytest

from dflow_protocols.events import Event, RoomMade, Tick
from dflow_protocols.simulator.model.schedule import INBOX_S, Life, Schedule


def test_what_is_due_at_one_time_happens_in_the_order_in_which_it_was_put_off() -> None:
    """Else a seed would tell two stories."""
    schedule, seen = Schedule(), list[str]()
    for seconds, what in ((2.0, "c"), (1.0, "a"), (1.0, "b")):
        schedule.after(seconds, partial(seen.append, what))
    schedule.run(1.5)
    assert seen == ["a", "b"]
    assert schedule.now == 1.5
    schedule.run(1.0)
    assert seen == ["a", "b", "c"]


def test_time_stops_where_what_was_waited_for_holds() -> None:
    """A goal that is met is judged in that moment, not at the deadline."""
    schedule, seen = Schedule(), list[int]()
    for seconds in range(5):
        schedule.after(float(seconds), partial(seen.append, seconds))
    assert schedule.run(10.0, lambda: len(seen) == 3)
    assert schedule.now == 2.0
    assert not schedule.run(10.0, lambda: len(seen) == 9)


def test_what_was_put_off_in_a_life_that_is_over_never_happens() -> None:
    """kill -9 takes timers and engines with it; the next life must not hear of them."""
    schedule, got = Schedule(), list[Event]()
    first, second = (Life(schedule, Random(1), got.append) for _ in range(2))
    first.tell(Tick())
    first.after(1.0, lambda: got.append(Tick()))
    second.tell(RoomMade())
    first.end()
    schedule.run(2.0)
    assert got == [RoomMade()]


def test_an_inbox_keeps_the_order_of_what_slots_and_store_tell() -> None:
    """A shard that was shed before a call ended is told before it."""
    schedule, got = Schedule(), list[tuple[float, Event]]()
    life = Life(schedule, Random(1), lambda event: got.append((schedule.now, event)))
    told: list[Event] = [Tick() if number % 2 else RoomMade() for number in range(50)]
    for event in told:
        life.tell(event)
    schedule.run(1.0)
    assert [event for _, event in got] == told
    assert all(at <= INBOX_S for at, _ in got)


def test_the_collector_works_as_before_once_time_stands_still() -> None:
    """A world is a guest in the process of a test or of a command, also where it ends with a promise that is broken."""
    schedule, thresholds, seen = Schedule(), gc.get_threshold(), list[tuple[int, int, int]]()

    def break_a_promise() -> None:
        seen.append(gc.get_threshold())
        raise AssertionError("broken")

    schedule.after(1.0, break_a_promise)
    with pytest.raises(AssertionError, match="broken"):
        schedule.run(2.0)
    assert seen[0][0] > thresholds[0]
    assert gc.get_threshold() == thresholds
