"""Who samples together, and who has to wait, by a batch that only counts."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest

from dflowd.jobs.baton import Baton
from dflowd.jobs.failures import GivenUp
from dflowd.models.served.boarding import Boarding
from dflowd.slots.doing import Doing
from tests.support.until import until

DEADLINE_S = 60.0


@dataclass
class Batch:
    """Calls that need so many passes each, of a batch with so many places. `story`: who was aboard, pass by pass."""

    places: int
    baton: Baton = field(default_factory=Baton)
    boarding: Boarding = field(default_factory=Boarding)
    left: dict[int, int] = field(default_factory=dict)
    story: list[tuple[int, ...]] = field(default_factory=list)
    given_up: set[int] = field(default_factory=set)
    ended: list[int] = field(default_factory=list)

    def call(self, number: int, kind: str, passes: int) -> threading.Thread:
        """Its thread; those that were made before come before it."""
        before = len(self.baton._lock._waiting)
        thread = threading.Thread(target=self._live, args=(number, kind, passes), daemon=True)
        thread.start()
        until(lambda: len(self.baton._lock._waiting) > before, DEADLINE_S)
        return thread

    def _live(self, number: int, kind: str, passes: int) -> None:
        with self.baton.held(number):
            try:
                with self.boarding.boarded(kind, self._has_room, self._go_on), self.baton.aboard():
                    self.left[number] = passes
                    try:
                        while self.left[number] > 0:
                            self._go_on()
                    finally:
                        del self.left[number]
            except GivenUp:
                pass
            self.ended.append(number)

    def _has_room(self) -> bool:
        return len(self.left) < self.places

    def _go_on(self) -> None:
        self.baton.together(Doing(), self._step)
        self.baton.pass_on()
        if self.baton.holder in self.given_up:
            raise GivenUp

    def _step(self) -> None:
        self.story.append(tuple(sorted(self.left)))
        for number in self.left:
            self.left[number] -= 1


def ride(batch: Batch, *calls: tuple[int, str, int]) -> list[tuple[int, ...]]:
    """Who was aboard together, in order, where these calls come at the same time."""
    with batch.baton.held(99):
        threads = [batch.call(*each) for each in calls]
    for thread in threads:
        thread.join(DEADLINE_S)
    assert not any(thread.is_alive() for thread in threads)
    return [seats for at, seats in enumerate(batch.story) if at == 0 or seats != batch.story[at - 1]]


def test_calls_of_a_kind_ride_together() -> None:
    """A pass for three costs what a pass for one costs."""
    assert (1, 2, 3) in ride(Batch(places=4), (1, "v1", 20), (2, "v1", 20), (3, "v1", 20))


def test_one_that_needs_other_weights_waits_for_those_that_came_before_it_and_for_no_other() -> None:
    """A stream of calls of the old kind would keep it waiting for ever."""
    seats = ride(Batch(places=4), (1, "v1", 20), (2, "v2", 5), (3, "v1", 5), (4, "v1", 5))
    together = {number for each in seats for number in each if len(each) > 1}
    assert [each for each in seats if 2 in each] == [(2,)]
    assert together == {3, 4}
    assert seats.index((2,)) < min(at for at, each in enumerate(seats) if 3 in each)


def test_where_there_is_no_room_the_first_that_waits_comes_first() -> None:
    """One that is smaller would pass it, and the next one, too."""
    batch = Batch(places=2)
    seats = ride(batch, (1, "v1", 10), (2, "v1", 10), (3, "v1", 10), (4, "v1", 10))
    assert max(map(len, seats)) == 2
    assert batch.ended == [1, 2, 3, 4]


def test_a_call_for_which_there_is_never_room_rides_alone() -> None:
    """It is longer than the cache; the engine deals with that, and nobody waits for ever."""
    assert {len(each) for each in ride(Batch(places=0), (1, "v1", 5), (2, "v1", 5))} == {1}


@pytest.mark.parametrize("gone", [1, 2, 3])
def test_one_that_is_given_up_aboard_or_waiting_holds_nobody_up(gone: int) -> None:
    """It leaves its place in the queue as it leaves the batch."""
    batch = Batch(places=1, given_up={gone})
    ride(batch, (1, "v1", 5), (2, "v2", 5), (3, "v1", 5))
    assert sorted(batch.ended) == [1, 2, 3]
    assert {number for seats in batch.story for number in seats} >= {1, 2, 3} - {gone}
