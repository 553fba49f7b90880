"""A reward of one's own: given what it asks for, held to finite numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dflow_protocols.pipeline import Pipeline, Stage
from dflowd.data.order import DataSet
from dflowd.jobs.failures import UserError
from dflowd.jobs.limits import Limits
from dflowd.operators.reward import Answers, Scores, reward_metrics
from dflowd.operators.reward import scores as scores_of
from dflowd.workers.pool import Pool
from tests.support.partition import first_partition

ENTRIES = [{"question": f"q{n}", "answer": f"a{n}", "level": n} for n in range(3)]
SAID = ["a0", "no", "a2"]


def scores(folder: Path, code: str, args: dict[str, Any] | None = None) -> list[float]:
    """What `judge.py:score` of this text gives for three completions."""
    return [float(value) for value in judged(folder, code, args).values]


def judged(folder: Path, code: str, args: dict[str, Any] | None = None, config: dict[str, Any] | None = None) -> Scores:
    (folder / "judge.py").write_text(code)
    (folder / "words.jsonl").write_text('{"prompt": "a", "answer": "b"}\n')
    pipeline = Pipeline(
        name="mine",
        steps=1,
        models={"policy": {"path": "model/"}},
        data={"words": {"jsonl": "words.jsonl"}},
        stages=[
            Stage("roll", "generate", "policy", config={"data": "words", "prompts": 2, "max_tokens": 2}),
            Stage("score", "reward", config={"function": "judge.py:score", "args": args or {}, **(config or {})}),
            Stage("adv", "advantage"),
            Stage("learn", "train", "policy", config={"optimizer": {"adamw": {"lr": 1e-3}}}),
        ],
    )
    data = DataSet("words", pipeline.data["words"], folder, 0)
    pool = Pool(folder, Limits())
    partition = first_partition(pipeline, folder, "score", 3, data, pool=pool)
    messages = [data.wording_of(entry).conversation(entry) for entry in ENTRIES]
    answers = Answers(SAID, ENTRIES, [1, 2, 3], [False, True, False], messages)
    try:
        made = scores_of(partition, data, answers)
    finally:
        pool.close()
    assert made.values.dtype == np.float32
    return made


@pytest.mark.parametrize(
    ("code", "args", "expected"),
    [
        ("def score(completion, answer):\n    return completion == answer\n", {}, [1, 0, 1]),
        ("def score(entry, scale=1):\n    return entry['level'] * scale\n", {"scale": 2}, [0, 2, 4]),
        ("def score(prompt, **rest):\n    return int(prompt[1:]) + len(rest)\n", {"more": 1}, [4, 5, 6]),
        (
            "def score(completions, answers):\n    return [c == a for c, a in zip(completions, answers)]\n",
            {},
            [1, 0, 1],
        ),
        (
            "def score(tokens, truncated, finished):\n    return tokens + 10 * truncated + 20 * finished\n",
            {},
            [21, 12, 23],
        ),
        ("def score(completions, tokens):\n    return tokens\n", {}, [1, 2, 3]),
        ("def score(messages):\n    return int(messages[-1]['content'][1:])\n", {}, [0, 1, 2]),
        ("def score(completions, messages):\n    return [len(each) for each in messages]\n", {}, [1, 1, 1]),
        ("async def score(completion, answer):\n    return completion == answer\n", {}, [1, 0, 1]),
        ("import numpy\ndef score(completions):\n    return numpy.arange(len(completions))\n", {}, [0, 1, 2]),
    ],
)
def test_a_reward_is_given_what_it_asks_for(
    tmp_path: Path, code: str, args: dict[str, Any], expected: list[float]
) -> None:
    """For one completion, or for all of a partition at once."""
    assert scores(tmp_path, code, args) == expected


def test_what_its_calls_count_is_summed_for_the_stage(tmp_path: Path) -> None:
    """A judge is paid by the answer, and the record of the task says how much."""
    code = (
        "from dflowd.workers.counts import count\n\n\n"
        "async def score(completion):\n    count('judge_requests', len(completion))\n    return 1.0\n"
    )
    assert judged(tmp_path, code).counts == {"judge_requests": 6.0}


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("def score(completion):\n    return 'good'\n", "judge.py:score gave 'good' where a finite number is due"),
        ("def score(completion):\n    return float('nan')\n", "gave nan where a finite number is due"),
        ("def score(completion):\n    return 1e400\n", "gave inf where a finite number is due"),
        ("def score(completions):\n    return [1.0]\n", "gave 1 values where a list of 3 numbers is due"),
        ("def score(completions):\n    return 1.0\n", "gave 1.0 where a list of 3 numbers is due"),
        ("def score(completion):\n    return 1 / 0\n", r"ZeroDivisionError: division by zero \(judge\.py:2\)"),
        ("def score(text):\n    return 1\n", "judge.py:score asks for `text`"),
        ("score = 3\n", "the module has no function `score`"),
    ],
)
def test_what_is_no_reward_ends_in_one_line_with_its_stage(tmp_path: Path, code: str, error: str) -> None:
    """The user's error, in the user's terms."""
    with pytest.raises(UserError, match=error):
        scores(tmp_path, code)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("True", 1.0),
        ("numpy.bool_(True)", 1.0),
        ("numpy.array(0.5)", 0.5),
        ("decimal.Decimal('0.25')", 0.25),
        ("torch.tensor(0.75)", 0.75),
        ("-3.4e38", -3.4e38),
    ],
)
def test_whatever_says_that_it_is_a_number_is_one(tmp_path: Path, given: str, expected: float) -> None:
    """`numpy.array(a) == b` gives numpy's boolean, a metric of torch a tensor: both mean a number."""
    code = f"import decimal, numpy, torch\ndef score(completion):\n    return {given}\n"
    assert scores(tmp_path, code) == pytest.approx([expected] * 3)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("1e39", "1e.39, which is more than float32 holds"),
        ("-1e39", "-1e.39, which is more than float32 holds"),
        ("10**400", "1000.*, which is more than float32 holds"),
        ("10**5000", "a int that cannot be shown"),
        ("numpy.float64(1e300)", "np.float64.1e.300., which is more than float32 holds"),
        ("numpy.array([0.5])", "where a finite number is due"),
        ("1j", "1j where a finite number is due"),
        ("decimal.Decimal('sNaN')", "where a finite number is due"),
        ("[1.0]", r"\[1.0\] where a finite number is due"),
    ],
)
def test_a_number_that_float32_cannot_hold_is_laid_to_its_function(tmp_path: Path, given: str, shown: str) -> None:
    """Not to a training that diverged two tasks later."""
    code = f"import decimal, numpy\ndef score(completion):\n    return {given}\n"
    with pytest.raises(UserError, match=f"judge.py:score gave .*{shown}") as caught:
        scores(tmp_path, code)
    assert caught.value.stage == "score"
    many = f"import decimal, numpy\ndef score(completions):\n    return [0.0, {given}, 0.0]\n"
    with pytest.raises(UserError, match=f"judge.py:score gave .*{shown}"):
        scores(tmp_path, many)


ODD = """
import os
def score(completion):
    if completion == 'a0':
        raise ValueError('odd')
    if completion == 'no':
        os._exit(3)
    return 0.5
"""


@pytest.mark.parametrize(
    ("on_error", "expected"), [("zero", [0.0, 0.0, 0.5]), ("leave_out", [float("nan"), float("nan"), 0.5])]
)
def test_what_a_failed_call_costs_is_the_pipelines_to_say(tmp_path: Path, on_error: str, expected: list[float]) -> None:
    """And what a limit decided is counted apart from what the inputs did."""
    found = judged(tmp_path, ODD, config={"on_error": on_error})
    assert found.values.tolist() == pytest.approx(expected, nan_ok=True)
    assert (found.errors, found.timeouts) == (2, 1)
    assert "ValueError: odd" in found.note


def test_a_function_that_scores_nothing_says_so(tmp_path: Path) -> None:
    """A forgotten `return` would else train on nothing, in silence."""
    assert "gave None for each of them" in judged(tmp_path, "def score(completion):\n    pass\n").note


def test_an_answer_without_a_score_is_no_reward(tmp_path: Path) -> None:
    """Neither a mean nor an extreme of rewards has it."""
    figures = reward_metrics(np.array([1.0, np.nan, 0.0], np.float32))
    assert figures == {
        "rewarded": 2,
        "reward_sum": 1.0,
        "reward_sq_sum": 1.0,
        "reward_max": 1.0,
        "reward_min": 0.0,
        "unscored": 1,
    }
