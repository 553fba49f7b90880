"""`python -m benchmarks weights`: what its figures say of times that were seen."""

from __future__ import annotations

from benchmarks.weights import STAR, SWARM, Spread, figures


def test_many_receivers_are_compared_with_one_and_with_a_star() -> None:
    """The goal bounds what many take beside one; the star only says what a swarm saves."""
    found = {
        (SWARM, 1): [Spread(10.0, 1.0), Spread(12.0, 1.0), Spread(11.0, 1.0)],
        (STAR, 1): [Spread(10.0, 1.0)],
        (SWARM, 8): [Spread(13.2, 1.1)],
        (STAR, 8): [Spread(80.0, 8.0)],
    }
    one, _, _, many, star, sent = figures(found, (1, 8))
    assert (one.ours, one.goal) == (11.0, None)
    assert (many.ours, many.anchor_value, many.holds) == (13.2, 11.0, True)
    assert (star.anchor_value, star.goal) == (80.0, None)
    assert (sent.ours, sent.anchor_value) == (1.1, 8.0)
