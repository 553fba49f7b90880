"""Token buckets and tallies: arithmetic, so time is a number."""

from __future__ import annotations

import pytest

from dflowd.process.tally import REPORT_INTERVAL_S, Tally
from dflowd.transport.limits import CLIENT_RATE, MAX_SOURCES, Buckets, Pace, Rate

RATE = Rate(frames=10, bytes=1000, burst_s=2.0)


def test_a_burst_passes_and_then_the_rate() -> None:
    """Steps come in bursts; floods do not end."""
    buckets = Buckets()
    assert sum(buckets.take(0.0, "a", 1, RATE) for _ in range(100)) == 20
    assert sum(buckets.take(1.0, "a", 1, RATE) for _ in range(100)) == 10
    assert sum(buckets.take(100.0, "a", 1, RATE) for _ in range(100)) == 20


def test_bytes_count_too_and_a_refused_frame_is_free() -> None:
    """One large frame that has to wait must not starve the small ones behind it."""
    buckets = Buckets()
    assert buckets.take(0.0, "a", 1900, RATE)
    assert not buckets.take(0.0, "a", 200, RATE)
    assert buckets.take(0.0, "a", 100, RATE)


def test_sources_do_not_pay_for_each_other_and_their_number_is_bounded() -> None:
    """Strangers choose their addresses."""
    buckets = Buckets()
    assert sum(buckets.take(0.0, number, 1, RATE) for number in range(3 * MAX_SOURCES)) == 3 * MAX_SOURCES
    assert len(buckets._levels) <= MAX_SOURCES


@pytest.mark.parametrize(("nbytes", "programs"), [(1 << 20, 1), (1 << 20, 3), (100, 1), (100, 3)])
def test_who_waits_for_answers_is_never_refused(nbytes: int, programs: int) -> None:
    """A model is pushed in thousands of pieces, over a line that is faster than what a client may send."""
    buckets, pace = Buckets(), Pace(CLIENT_RATE)
    due = [0.0] * programs  # when each sends its next piece
    for _ in range(3000):
        now = min(due)
        assert buckets.take(now, "a", nbytes + 200, CLIENT_RATE)
        due[due.index(now)] = now + pace.wait_s(now, "a", nbytes)
    assert 3000 * nbytes > 0.7 * CLIENT_RATE.bytes * max(due) or 0.7 * CLIENT_RATE.frames * max(due) < 3000


def test_repeats_are_counted_and_reported_now_and_then() -> None:
    """What a peer can trigger is a line every ten seconds, with how many there were."""
    tally = Tally()
    assert tally.add(0.0, "x") == 1
    assert [tally.add(1.0, "x") for _ in range(5)] == [0] * 5
    assert tally.add(1.0, "y") == 1
    assert tally.add(REPORT_INTERVAL_S, "x") == 6
