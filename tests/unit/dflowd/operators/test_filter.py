"""Filters: a condition on a group's rewards, ours or the user's, and what is trained on then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dflow_protocols.metrics import finish
from dflow_protocols.pipeline import Stage
from dflowd.data import columns
from dflowd.jobs.failures import UserError
from dflowd.operators.advantage import advantage
from dflowd.operators.filter import filter_groups
from dflowd.operators.partition import Output

from .partitions import known, partition, pipeline

PASS_RATE = "dflowd.operators.filter:pass_rate"


def filtered(folder: Path, right: list[float], function: str = PASS_RATE, **args: Any) -> Output:
    config = {"function": function, "args": args}
    spec = pipeline(
        Stage("keep", "filter", reads=["right.reward"], config=config), rewards={"right": 1.0, "short": 0.0}
    )
    part = partition(folder, spec, "keep", known(right=right))
    try:
        return filter_groups(part)
    finally:
        part.workers().close()


def kept(output: Output) -> list[float]:
    found: list[float] = columns.values(output.columns["kept"]).tolist()
    return found


def test_groups_whose_pass_rate_is_within_the_bounds_are_kept(tmp_path: Path) -> None:
    """Whole groups: one number a completion, alike within a group, as all that is read by completion has."""
    made = filtered(tmp_path, [1.0, 0.0, 1.0, 1.0], low=0.25, high=0.75)
    assert kept(made) == [1, 1, 0, 0]
    assert finish(made.metrics) == {"kept_frac": 0.5}


def test_a_bound_is_within_and_a_completion_without_a_score_is_not_counted(tmp_path: Path) -> None:
    """What a judge could not score is not a failure of the policy."""
    assert kept(filtered(tmp_path, [0.5, np.nan, np.nan, np.nan], low=0.5, high=0.75)) == [1, 1, 0, 0]


def test_bounds_that_are_none_are_told_as_the_stages(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"`low` is 0\.9 and `high` 0\.1 where two numbers are due") as caught:
        filtered(tmp_path, [1.0, 0.0, 1.0, 1.0], low=0.9, high=0.1)
    assert caught.value.stage == "keep"


def test_a_function_of_the_users_own_judges_a_group(tmp_path: Path) -> None:
    """It gets by name what it asks for, in a worker, as a reward's function does."""
    (tmp_path / "mine.py").write_text(
        "def keep(rewards, completions, answer, truncated, step, *, most):\n"
        "    assert (answer, step, len(rewards)) == ('a', 0, 2) and completions[0] in 'ac'\n"
        "    return sum(truncated) <= most and rewards[1] is not None\n"
    )
    assert kept(filtered(tmp_path, [1.0, 0.0, 1.0, 1.0], "mine.py:keep", most=0)) == [1, 1, 0, 0]
    assert kept(filtered(tmp_path, [1.0, np.nan, 1.0, 1.0], "mine.py:keep", most=1)) == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("def keep(rewards): return 0.5", "mine.py:keep gave 0.5 where True or False is due"),
        ("def keep(rewards): return None", r"mine.py:keep gave nothing \(None\) where True or False is due"),
        ("def keep(rewards): return 1 / 0", "ZeroDivisionError"),
        ("def keep(completion): return True", "mine.py:keep asks for `completion`; it may ask for rewards"),
    ],
)
def test_a_function_that_does_not_say_is_laid_to_the_stage(tmp_path: Path, code: str, error: str) -> None:
    """No group is kept or dropped by a guess."""
    (tmp_path / "mine.py").write_text(code + "\n")
    with pytest.raises(UserError, match=error) as caught:
        filtered(tmp_path, [1.0, 0.0, 1.0, 1.0], "mine.py:keep")
    assert caught.value.stage == "keep"


@pytest.mark.parametrize(("low", "groups"), [(0.25, ((4, 2), (0, 0))), (0.75, ((0, 0), (0, 0)))])
def test_what_a_filter_does_not_keep_is_not_trained_on(
    tmp_path: Path, low: float, groups: tuple[tuple[int, int], ...]
) -> None:
    """Such a group counts nothing in what a step's sum is divided by, nor in what it is whitened by."""
    between = Stage("keep", "filter", reads=["right.reward"], config={"function": PASS_RATE})
    spec = pipeline(between, rewards={"right": 1.0, "short": 0.0}, scale="none", whiten=True)
    right = [1.0, 0.0, 0.0, 0.0]
    keep = {"keep.kept": dict(filtered(tmp_path, right, low=low, high=0.75).columns)}
    made = advantage(partition(tmp_path, spec, "adv", known(right=right) | keep))
    assert made.groups == groups
    assert made.metrics["whitened_count"] == sum(tokens for tokens, _ in groups)
