"""Patience: how long a thing waits is one number, whoever asks and however often."""

from __future__ import annotations

from dflow_protocols.steps.patience import Patience, Wait


def test_asking_starts_nothing() -> None:
    """A rule that is asked first would else make another one true earlier."""
    patience = Patience()
    assert patience.lasts(5.0, Wait.COPIES) == 0.0
    assert patience == Patience()


def test_patience_runs_from_the_first_sight_until_it_ends() -> None:
    """What still waits is seen at each reconcile; only the first counts, until it waited no longer."""
    patience = Patience()
    for now in (1.0, 2.0, 4.0):
        patience.follow(now, True, Wait.RETURN, "seal")
    assert patience.lasts(4.0, Wait.RETURN, "seal") == 3.0
    patience.follow(5.0, False, Wait.RETURN, "seal")
    assert patience.lasts(6.0, Wait.RETURN, "seal") == 0.0
    patience.follow(6.0, True, Wait.RETURN, "seal")
    assert patience.lasts(7.0, Wait.RETURN, "seal") == 1.0


def test_things_of_one_kind_wait_each_for_itself() -> None:
    """One lost seal must not make the next one void at once."""
    patience = Patience()
    patience.start(0.0, Wait.RETURN, "one")
    patience.start(3.0, Wait.RETURN, "other")
    assert patience.lasts(4.0, Wait.RETURN, "other") == 1.0
    assert not patience.is_waiting(Wait.TURN, "one")
