"""The clock of a pretended host."""

from __future__ import annotations

from random import Random

import pytest

from dflow_protocols.simulator.model.clock import HostClock


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
