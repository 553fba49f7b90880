"""Links as the kernel sees them: a path that loses long packets is told from one that loses some, or all."""

from __future__ import annotations

import os
from dataclasses import replace

from dflowd.transport.links import FEW, FRESH_BYTES, MANY, SHORT_BYTES, Progress, ends_of

STUCK = Progress(
    retransmits=2,
    unacked=2,
    sacked=0,
    sent_s=0.2,
    heard_s=0.5,
    round_trip_s=0.001,
    acked=300,
    received=900,
    waiting=2_000,
)
STALLED_S = 0.8


def test_who_is_heard_while_nothing_long_arrives_is_behind_a_path_that_loses_it() -> None:
    """Its signs of life are short, and what we sent again after the last of them is not acknowledged either."""
    assert STUCK.is_stalled
    assert STUCK.is_deaf(STALLED_S)
    assert STUCK.loses_what_is_long


def test_who_is_silent_may_be_dead() -> None:
    """Then nothing at all gets through, and short segments would not either."""
    assert not STUCK.is_deaf(stalled_s=0.4)


def test_who_has_just_come_back_gets_what_was_lost_with_the_next_repetition() -> None:
    """A cable was pulled and put back: its word came before ours was sent again, or a moment after that."""
    assert not replace(STUCK, sent_s=0.6).is_deaf(STALLED_S)
    assert not replace(STUCK, sent_s=0.01).is_deaf(STALLED_S)


def test_a_path_that_loses_packets_at_random_is_not_taken_for_one_that_loses_long_ones() -> None:
    """It lets some through, here or before; short segments would make it slower."""
    assert not replace(STUCK, sacked=1).is_stalled
    assert not replace(STUCK, retransmits=0).is_stalled
    assert not replace(STUCK, acked=FRESH_BYTES).loses_what_is_long
    assert replace(STUCK, acked=FRESH_BYTES, unacked=MANY - 2).loses_what_is_long
    assert not replace(STUCK, unacked=FEW - 3).loses_what_is_long


def test_what_fits_into_a_short_segment_says_nothing_of_long_ones() -> None:
    """A sign of life, or a word that nothing is there."""
    assert not replace(STUCK, waiting=SHORT_BYTES).is_stalled


def test_a_descriptor_that_leads_to_a_file_by_now_costs_none() -> None:
    """A stranger that dials and hangs up may leave its number to a shard's memory, which would never be freed: each
    look would hold one more descriptor of it."""
    file = os.memfd_create("shard")
    try:
        before = os.listdir("/proc/self/fd")
        assert ends_of(file) is None
        assert os.listdir("/proc/self/fd") == before
    finally:
        os.close(file)
