"""What a lag is worth is told of steps in which sampling and training go on side by side."""

from __future__ import annotations

import pytest

from benchmarks.lag import LEARNER, SAMPLER, settled


def test_only_steps_that_overlap_count() -> None:
    """The first step rolls out before it trains, and the last one trains beside nothing."""
    ends = [100.0, 104.0, 106.0, 108.5, 110.0]
    idle_of_all = {"sampler_idle_frac": 0.5, "trainer_idle_frac": 0.9}
    rows = [{"step": step, "time_s": at, **idle_of_all} for step, at in enumerate(ends)]
    for row in rows[2:4]:
        row |= {"sampler_idle_frac": 0.01, "trainer_idle_frac": 0.25}
    step_s, idle = settled(rows)
    assert step_s == pytest.approx((2.0 + 2.5) / 2)
    assert idle == {SAMPLER: pytest.approx(0.01), LEARNER: pytest.approx(0.25)}
