"""Rewards by rules, as a spec names them."""

from __future__ import annotations

import pytest

from dflowd.rewards.checks import form, math, overlong

DERIVED = "Natalia sold 48/2 = <<48/2=24>>24 clips in May, 72 altogether.\n#### 72"


@pytest.mark.parametrize(
    "said", ["so it is \\boxed{72}.", "The answer is 72", "$72", "48 + 24 = 72.0", "x" * 9000 + " 72"]
)
def test_an_answer_is_right_however_it_is_written(said: str) -> None:
    """Models write numbers in many ways, and data sets keep derivations."""
    assert math(said, DERIVED) == math(said, "72") == 1.0


@pytest.mark.parametrize(
    "said", ["so it is \\boxed{71}.", "", "no idea", "72, or else \\boxed{24}", "\\boxed{", "7" * 5000]
)
def test_another_answer_is_wrong(said: str) -> None:
    """Also where it holds the right number among others, or cannot be parsed."""
    assert math(said, DERIVED) == 0.0


def test_numbers_and_expressions_are_compared_by_what_they_are() -> None:
    """A comma between thousands and a fraction are ways of writing."""
    assert math("\\boxed{1200}", "that is\n#### 1,200") == 1.0
    assert math("\\boxed{\\frac{1}{2}}", "0.5") == 1.0


def test_a_form_holds_for_all_of_a_completion() -> None:
    """A tag in the middle of a chat about tags is no format."""
    pattern = r"<think>.*</think>\s*<answer>.*</answer>"
    assert form(" <think>a\nb</think>\n<answer>1</answer> ", pattern=pattern) == 1
    assert form("well, <think>a</think><answer>1</answer>", pattern=pattern) == 0


@pytest.mark.parametrize(("tokens", "expected"), [(10, 0.0), (60, 0.0), (80, -0.5), (100, -1.0), (300, -1.0)])
def test_length_is_docked_within_the_buffer_alone(tokens: int, expected: float) -> None:
    """Equation 13 of DAPO, at its corners."""
    assert overlong("", tokens, most=100, buffer=40) == pytest.approx(expected)


def test_a_buffer_that_cannot_be_is_told() -> None:
    """It would divide by nothing, or dock the empty text."""
    with pytest.raises(ValueError, match="`buffer` is 0"):
        overlong("", 1, most=10, buffer=0)
