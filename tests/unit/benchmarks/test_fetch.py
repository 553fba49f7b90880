"""Bytes from another process: every way is measured alike, and ours held against the others by medians."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from benchmarks.micro import fetch
from benchmarks.micro.fetch import figures
from benchmarks.micro.fetch.streams import Stream
from benchmarks.micro.fetch.way import Sample

MIB = 1 << 20


def turns(*gb_s: float) -> list[Sample]:
    return [Sample(round(each * 1e9), 1.0, [1e3 / each], 0.5 * each) for each in gb_s]


def test_ours_is_held_against_each_anchor_by_the_medians_of_all_turns() -> None:
    """A turn that something disturbed must not decide; and what has a goal is throughput."""
    samples = {("sealed", MIB): turns(0.1, 2.0, 2.2), ("TLS", MIB): turns(1.0, 1.0, 9.0), ("TCP", MIB): turns(4.0)}
    found = figures(["sealed", "TLS", "TCP"], [MIB], samples, samples)
    assert [each.anchor for each in found] == ["TLS"] * 3 + ["TCP"] * 3
    rate, latency, cost = found[:3]
    assert (rate.ours, rate.anchor_value, rate.ratio, rate.holds) == (2.0, 1.0, 2.0, True)
    assert (latency.ours, latency.anchor_value, latency.goal) == (500.0, 1000.0, None)
    assert (cost.ours, cost.anchor_value) == (0.5, 0.5)
    assert found[3].goal is None


def test_without_ray_the_others_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not installed is named with the command that installs it."""
    monkeypatch.setattr(fetch, "find_spec", lambda name: None)
    told: list[Mapping[str, Any]] = []
    assert fetch.measure(told.append, ways=("Ray",)) == []
    assert told == [{"way": "Ray", "skipped": "`ray` is not installed: pip install -e '.[bench]'"}]


@pytest.mark.parametrize("is_tls", [False, True])
def test_a_stream_brings_every_piece_that_was_asked_for(is_tls: bool) -> None:
    """The last ones are waited for though the time is over, and at least one is brought."""
    stream = Stream(is_tls)
    sample = stream.fetch(100_000, 3, 0.0)
    assert (sample.nbytes, len(sample.times_ms)) == (100_000, 1)
    sample = stream.fetch(10_000, 3, 0.01)
    assert sample.nbytes == 10_000 * len(sample.times_ms)
    stream.close()
