"""Time on a pretended host."""

from __future__ import annotations

from random import Random

import pytest

from dflow_protocols.events import Lagged
from dflow_protocols.simulator.model.clock import HostClock, Lateness


@pytest.mark.parametrize("seed", range(20))
def test_an_alarm_is_never_a_rounding_too_early(seed: int) -> None:
    """Else a node would be woken before its deadline, again and again, at one moment."""
    rng = Random(seed)
    clock = HostClock(rng.uniform(0.0, 1e5), rng.uniform(0.98, 1.02))
    for _ in range(200):
        shown = clock.offset_s + rng.uniform(0.0, 1e3)
        assert shown <= clock.read(clock.when(shown)) < shown + 1e-6


def test_a_new_pace_begins_where_the_old_one_ended_and_a_leap_goes_forward() -> None:
    """A monotonic clock."""
    clock = HostClock(100.0)
    clock.run_at(1.02, 50.0)
    assert clock.read(50.0) == pytest.approx(150.0)
    assert clock.read(60.0) == pytest.approx(160.2)
    clock.leap(7.0)
    assert clock.read(60.0) == pytest.approx(167.2)


def test_nothing_overtakes_what_waits() -> None:
    """A daemon has one inbox: what comes when the host is well again waits behind what came before."""
    late = Lateness()
    assert late.wait(1.0, 0.5) == 0.5
    assert late.wait(1.25, 0.0) == 0.25
    assert late.wait(2.0, 0.0) == 0.0


def test_the_worst_wait_of_a_second_is_told_once() -> None:
    """As often as a daemon tells it, and only what no quiet machine does."""
    late = Lateness()
    late.note(0.04)
    assert late.take(1.0) is None
    late.note(0.3)
    late.note(0.2)
    assert late.take(1.0) == Lagged(0.3)
    late.note(0.4)
    assert late.take(1.5) is None
    assert late.take(2.0) == Lagged(0.4)
