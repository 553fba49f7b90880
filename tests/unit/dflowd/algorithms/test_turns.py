"""Advantages of turns, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dflowd.algorithms.advantages.turns import turn_advantages


def test_a_turn_answers_for_what_came_from_it_on() -> None:
    """Not for what was earned before it: a good first turn does not make the second one good."""
    first, second = turn_advantages([np.array([1.0, 0.0]), np.array([0.0, 0.5])], 1.0, "none")
    assert first.tolist() == [0.25, -0.25]
    assert second.tolist() == [-0.25, 0.25]


def test_turns_are_compared_with_those_of_the_same_number() -> None:
    """And one that nobody else reached with none."""
    long, short, flat = turn_advantages([np.array([0, 0, 4.0]), np.array([2.0]), np.array([2.0])], 0.5, "none")
    assert long.tolist() == pytest.approx([1 - 5 / 3, 0.0, 0.0])
    assert short.tolist() == flat.tolist() == pytest.approx([2 - 5 / 3])


def test_a_deviation_is_that_of_the_turn() -> None:
    """As GRPO's is that of the group: its formula, once for each turn."""
    found = turn_advantages([np.array([1.0, 3.0]), np.array([1.0, 1.0])], 0.0, "std")
    assert [each.tolist() for each in found] == [
        [0.0, pytest.approx(1.0, abs=1e-5)],
        [0.0, pytest.approx(-1, abs=1e-5)],
    ]
