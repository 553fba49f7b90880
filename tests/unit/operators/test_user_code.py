"""A user's function: found beside the spec, called by its signature, blamed by its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from dflowd.engines.contract import UserError
from dflowd.operators.reward import exact_match
from dflowd.operators.user_code import call_user, load_function


def test_a_file_and_a_module_beside_the_spec_are_found(tmp_path: Path) -> None:
    """The spec's folder is on the path, so a reward may import its neighbours."""
    (tmp_path / "weights_of_mine.py").write_text("HALF = 0.5\n")
    (tmp_path / "rewards_of_mine.py").write_text("from weights_of_mine import HALF\ndef half(*a, **k): return HALF\n")
    assert load_function("rewards_of_mine.py:half", tmp_path)() == 0.5
    assert load_function("rewards_of_mine:half", tmp_path)() == 0.5


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("nowhere.py:half", "no file"),
        ("no_such_module:half", "No module named"),
        ("math:half", "no function `half`"),
        ("broken.py:half", r"SyntaxError.*broken\.py|broken\.py:half: SyntaxError"),
    ],
)
def test_what_cannot_be_loaded_is_named(tmp_path: Path, name: str, error: str) -> None:
    """Before anything runs for nothing."""
    (tmp_path / "broken.py").write_text("def half(:\n")
    with pytest.raises(UserError, match=error):
        load_function(name, tmp_path)


def test_an_exception_names_the_line_of_the_user(tmp_path: Path) -> None:
    """One line: what, and where in the user's own file."""
    (tmp_path / "sharp.py").write_text("def cut(text):\n    return text[99]\n")
    with pytest.raises(UserError) as caught:
        call_user("score", load_function("sharp.py:cut", tmp_path), "abc")
    assert str(caught.value) == "IndexError: string index out of range (sharp.py:2)"
    assert caught.value.stage == "score"


@pytest.mark.parametrize(
    ("completion", "reward"), [("kralC", 1.0), ("kralc", 1.0), (" kralc\n", 1.0), ("kralcs", 0.0), ("", 0.0)]
)
def test_exact_match_is_all_or_nothing(completion: str, reward: float) -> None:
    """Parts of a point for parts of the answer can be had without ever stopping."""
    assert exact_match(completion, "kralC", prompt="", entry={}) == reward
