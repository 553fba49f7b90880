"""An advantage by a function of one's own: of a group, in a worker, with the settings that ours have beside theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dflowd.data import columns
from dflowd.jobs.failures import UserError
from dflowd.operators.partition import Output
from dflowd.operators.registry import operate

from .partitions import known, partition, pipeline

CENTRED = "def adv(rewards, *, scale=1.0):\n    return [scale * (r - sum(rewards) / len(rewards)) for r in rewards]\n"


def made(folder: Path, text: str, right: list[float], **adv: Any) -> Output:
    (folder / "mine.py").write_text(text)
    spec = pipeline(rewards={"right": 1.0, "short": 0.0}, method="mine.py:adv", **adv)
    part = partition(folder, spec, "adv", known(right=right))
    try:
        (output,) = operate(part)
    finally:
        part.workers().close()
    return output


def numbers(output: Output) -> list[float]:
    found: list[float] = columns.values(output.columns["advantage"]).tolist()
    return found


def test_it_is_asked_once_a_group_and_gives_a_number_for_each_completion(tmp_path: Path) -> None:
    """What it asks for comes by name, as to a filter's function; `args` are its settings."""
    assert numbers(made(tmp_path, CENTRED, [1, 0, 1, 1], args={"scale": 2.0})) == [1.0, -1.0, 0.0, 0.0]
    gives = "return [len(c) + 2 * t for c, t in zip(completions, truncated)]"
    text = f"def adv(completions, answer, truncated, step):\n    {gives}\n"
    assert numbers(made(tmp_path, text, [1, 0, 1, 1])) == [1.0, 1.0, 1.0, 3.0]


def test_who_has_no_score_or_gets_none_is_not_trained_on(tmp_path: Path) -> None:
    """Whatever it gives for a completion that nobody could judge."""
    text = "def adv(rewards):\n    return [None if r == 0 else 1.0 for r in rewards]\n"
    output = made(tmp_path, text, [1.0, np.nan, 0.0, 1.0])
    assert numbers(output) == pytest.approx([1.0, np.nan, np.nan, 1.0], nan_ok=True)
    assert output.groups == ((2, 1), (2, 1))


def test_groups_that_are_flat_and_what_was_cut_off_are_left_out_as_with_ours(tmp_path: Path) -> None:
    """By the rewards, which it was given, and not by what it made of them."""
    output = made(tmp_path, CENTRED, [1, 1, 1, 0], drop_flat_groups=True, mask_truncated=True, whiten=True)
    assert output.groups == ((0, 0), (2, 1))
    assert (output.metrics["groups_zero_std"], output.metrics["whitened_count"]) == (1, 2)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("def adv(rewards): return [1.0]", "mine.py:adv gave 1 values where a list of 2 numbers is due"),
        ("def adv(rewards): return 1.0", "mine.py:adv gave 1.0 where a list of 2 numbers is due"),
        ("def adv(rewards): return [float('nan')] * 2", "mine.py:adv gave nan where a finite number is due"),
        ("def adv(rewards): return 1 / 0", r"ZeroDivisionError: division by zero \(mine.py:1\)"),
        ("def adv(values): return values", "mine.py:adv asks for `values`; it may ask for rewards"),
        ("def adv(rewards): return [1e31] * 2", "an advantage of 1e.31, whose sums are more than float32 holds"),
    ],
)
def test_what_goes_wrong_in_it_is_laid_to_the_stage(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(UserError, match=error) as caught:
        made(tmp_path, text + "\n", [1, 0, 1, 1])
    assert caught.value.stage == "adv"
