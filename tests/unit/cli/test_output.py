"""Durations and texts as people read them."""

from __future__ import annotations

import pytest

from dflow_cli.output import about, escaped, seconds


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 s"),
        (0.004, "0 s"),
        (0.04, "0.04 s"),
        (0.412, "0.4 s"),
        (3.0, "3 s"),
        (9.96, "10 s"),
        (59.7, "1 min"),
        (80.2, "1 min 20 s"),
        (3599.8, "1 h"),
        (7500.0, "2 h 5 min"),
        (90_000.0, "25 h"),
    ],
)
def test_a_duration_is_said_in_the_units_of_its_size(value: float, text: str) -> None:
    """Nobody says 59.70 seconds, nor 60 seconds."""
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.2, "about 1 s"),
        (42.0, "about 40 s"),
        (100.0, "about 1 min 40 s"),
        (757.0, "about 13 min"),
        (9_000.0, "about 2 h 30 min"),
    ],
)
def test_an_estimate_is_no_finer_than_it_is_known(value: float, text: str) -> None:
    """12 min 37 s left, said of twelve minutes or fourteen, is believed and resented."""
    assert about(value) == text


def test_what_would_steer_a_terminal_is_told_in_its_place() -> None:
    """A completion may hold any character; letters of all languages stay as they are."""
    assert escaped("a\n\tb\x1b[31m é 中") == r"a\n\tb\x1b[31m é 中"
