"""Own updates: when a node leaves its next versions to others, and when it tries again."""

from __future__ import annotations

from dflow_protocols.versions.own_updates import COPIED, OwnUpdates


def test_one_that_fails_is_an_accident_and_two_in_a_row_are_not() -> None:
    """However often the same one is tried."""
    updates = OwnUpdates()
    assert not any(updates.failed(4) for _ in range(5))
    assert updates.failed(5)
    assert [number for number in range(20) if updates.are_left(number)] == list(range(6 + COPIED))


def test_a_try_in_between_that_works_ends_it() -> None:
    """What was wrong is over, and an accident is one again."""
    updates = OwnUpdates()
    updates.failed(4)
    assert not updates.made()
    assert not updates.failed(5)
    assert updates.failed(6)
    assert updates.made()
    assert not updates.are_left(7)
    assert not updates.failed(9)


def test_each_further_failure_is_followed_by_twice_as_long_without_a_try() -> None:
    """A host that stays ill costs less and less."""
    updates = OwnUpdates()
    updates.failed(0)
    lengths, number = [], 1
    for _ in range(8):
        assert updates.failed(number)
        assert not updates.failed(number)  # tried all the same, as nobody else made it
        lengths.append(updates.left_before - number - 1)
        number = updates.left_before
    assert lengths == [COPIED * factor for factor in (1, 2, 4, 8, 16, 32, 32, 32)]
