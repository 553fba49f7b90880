"""Admission to a store: earliest place first, and nobody starves."""

from __future__ import annotations

from dflow_protocols.names import RunId
from dflow_protocols.shards.space import STARVATION_S, AdmissionQueue, Priority, latest_after
from dflow_protocols.work import Product

FIRST, SECOND = RunId("a" * 32), RunId("b" * 32)


def test_the_order_of_places_is_that_of_runs_then_of_steps_then_of_what_ends_one() -> None:
    """The same on every node: else each would make room for the run that the other one has put off."""
    places = [Priority(SECOND, 0), Priority(FIRST, 7), Priority(FIRST, 2)]
    assert sorted(places) == [Priority(FIRST, 2), Priority(FIRST, 7), Priority(SECOND, 0)]
    of_a_step = [Priority(FIRST, 2, product) for product in Product]
    assert of_a_step == sorted(of_a_step)
    assert of_a_step[-1] < Priority(FIRST, 7, Product.STATE)
    found = [(place, index) for index, place in enumerate(places)]
    assert latest_after(Priority(FIRST, 2), found) == 0
    assert latest_after(Priority(FIRST, 7), found) == 0
    assert latest_after(Priority(SECOND, 0), found) is None


def test_who_comes_first_is_waited_for_but_not_for_ever() -> None:
    """It may be dead or cancelled by the time that there is room."""
    admission = AdmissionQueue()
    admission.refuse(0.0, Priority(FIRST, 3), [Priority(FIRST, 9)])
    assert not admission.enter(1.0, Priority(FIRST, 4))
    assert admission.enter(1.0, Priority(FIRST, 3))
    admission.took(Priority(FIRST, 3))
    assert admission.enter(1.0, Priority(FIRST, 4))  # the first one had its turn
    admission.refuse(2.0, Priority(FIRST, 3), [Priority(SECOND, 0)])
    assert not admission.enter(2.0 + STARVATION_S / 2, Priority(SECOND, 0))
    assert admission.enter(2.0 + STARVATION_S, Priority(SECOND, 0))


def test_who_asks_again_and_again_does_not_hold_up_those_for_whose_end_it_waits() -> None:
    """The state of a later run does not give way: it has to end, and cannot while it may not have the rest."""
    admission, served = AdmissionQueue(), 0
    for tick in range(200):
        now = tick / 4
        assert admission.enter(now, Priority(FIRST, 3))
        admission.refuse(now, Priority(FIRST, 3), [Priority(SECOND, 0)])
        served += admission.enter(now, Priority(SECOND, 0))
    assert 50 <= served <= 150


def test_who_is_refused_by_what_comes_before_it_keeps_nobody_waiting() -> None:
    """A run that cannot go on must not hold up the others."""
    admission = AdmissionQueue()
    admission.refuse(0.0, Priority(FIRST, 3), [Priority(FIRST, 3), Priority(FIRST, 1)])
    assert admission.enter(0.0, Priority(SECOND, 0))
    assert admission.freed()
    assert not admission.freed()
