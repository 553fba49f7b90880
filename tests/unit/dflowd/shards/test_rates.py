"""Slow links are named, once, and taken back; what is not the link's fault is not held against it."""

from __future__ import annotations

from math import inf

from dflow_protocols.concerns import CONCERNS
from dflow_protocols.events import Report
from dflow_protocols.names import CHUNK_BYTES, NodeId
from dflowd.shards.rates import AGAIN_S, BRIEF_BYTES, JUDGED_S, SLOW_BYTES_S, Rates

PEER = NodeId("0a" * 16)
SLOW_CHUNK_S = 1.5 * CHUNK_BYTES / SLOW_BYTES_S


def bring(rates: Rates, begin: float, chunks: int, chunk_s: float) -> list[Report]:
    """So many chunks that are asked for at once and come one after the other."""
    rates.asked(begin, PEER)
    came = [rates.came(begin + (index + 1) * chunk_s, PEER, CHUNK_BYTES) for index in range(chunks)]
    rates.idle(PEER)
    return [report for report in came if report is not None]


def test_a_slow_link_is_named_once_and_taken_back_when_it_is_quick_again() -> None:
    """A person learns which link every step waits for; a line for each chunk would hide it."""
    rates = Rates()
    (slow,) = bring(rates, 0.0, 100, SLOW_CHUNK_S)
    assert slow == Report("transport.slow_link", {"peer": PEER, "bytes_s": round(SLOW_BYTES_S / 1.5)}, "warning")
    assert [report.name for report in bring(rates, 1000.0, 100, 0.01)] == ["transport.link_recovered"]


def test_a_link_that_stays_slow_is_named_again_before_it_is_forgotten() -> None:
    """The concern ends by itself, as the run does that used the link: nobody measures one that carries nothing."""
    rates = Rates()
    told = bring(rates, 0.0, round(2.5 * AGAIN_S / SLOW_CHUNK_S), SLOW_CHUNK_S)
    assert [report.name for report in told] == 3 * ["transport.slow_link"]
    assert AGAIN_S + JUDGED_S < CONCERNS["transport.slow_link"].stands_s < inf


def test_time_in_which_nothing_is_asked_says_nothing_of_a_link() -> None:
    """A chunk a minute over a quick link is a run with long steps."""
    rates = Rates()
    assert [report for turn in range(100) for report in bring(rates, 60.0 * turn, 1, 0.01)] == []


def test_one_long_wait_is_no_slow_link() -> None:
    """A host that was starved for a while: what came before and after it counts, too."""
    rates = Rates()
    bring(rates, 0.0, 2, 0.01)
    assert bring(rates, 1.0, 1, 0.8 * JUDGED_S) == bring(rates, 10.0, 20, 0.01) == []


def test_a_chunk_after_many_short_answers_is_not_held_against_the_link() -> None:
    """A holder of hundreds of small shards is asked for some at each moment, over a link that may be quick."""
    rates = Rates()
    rates.asked(0.0, PEER)
    for turn in range(1000):
        assert rates.came(0.01 * turn, PEER, BRIEF_BYTES) is None
        rates.asked(0.01 * turn, PEER)
    assert rates.came(10.0, PEER, CHUNK_BYTES) is None
