"""A stage of one's own: what it is given of each completion, and what it may give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dflow_protocols.pipeline import Pipeline, Stage
from dflowd.data import columns
from dflowd.jobs.failures import UserError
from dflowd.operators.custom import custom
from dflowd.operators.partition import Output

from .partitions import known, partition, pipeline

BY_TOKEN = Stage("own", "own.py:f", reads=["right.reward"], writes=["advantage"], per_token=["advantage"])


def made_by(folder: Path, body: str, own: Stage = BY_TOKEN, right: tuple[float, ...] = (1.0, 0.0, 1.0, 0.0)) -> Output:
    """What `body` gives as `def f(rows)`."""
    (folder / "own.py").write_text(f"def f(rows):\n    {body}\n")
    (made,) = custom(partition(folder, pipeline(own), "own", known(right=right)))
    return made


def test_of_several_outputs_each_has_its_name(tmp_path: Path) -> None:
    """A list of lists, in the order of `writes`, is the first thing that people give."""
    own = Stage("own", "own.py:f", reads=["right.reward"], writes=["gap", "total"])
    with pytest.raises(UserError, match=r"own.py:f gave .* where a dict of lists is due, by gap, total"):
        made_by(tmp_path, "return [[1.0] * 4, [1.0] * 4]", own)


def test_a_stage_of_ones_own_gets_every_reward_that_it_reads(tmp_path: Path) -> None:
    """By `stage.output`; by the output alone only where that says which one, for the first is not the other."""
    code = "def rows(rows):\n    return [sum(v for k, v in r.items() if k.endswith('.reward')) for r in rows]\n"
    (tmp_path / "join.py").write_text(code)
    own = Stage("joined", "join.py:rows", reads=["right.reward", "short.reward"], writes=["reward"])
    spec = pipeline(own, rewards={"joined": 1.0})
    (made,) = custom(partition(tmp_path, spec, "joined", known()))
    assert columns.values(made.columns["reward"]).tolist() == [1, 1, 2, 0]


def test_a_row_has_the_short_name_where_there_is_one_such_output_and_a_list_of_what_is_per_token(
    tmp_path: Path,
) -> None:
    (tmp_path / "join.py").write_text("def rows(rows):\n    return [r['reward'] + sum(r['logprob']) for r in rows]\n")
    models = {"policy": {"path": "model/"}, "start": {"path": "model/"}}
    own = Stage("joined", "join.py:rows", reads=["right.reward", "ref.logprob"], writes=["x"])
    raw = pipeline().to_dict() | {"models": models}
    stages = [*raw["stages"], Stage("ref", "logprob", "start").to_dict(), own.to_dict()]
    spec = Pipeline.from_dict(raw | {"stages": stages})
    (made,) = custom(partition(tmp_path, spec, "joined", known()))
    assert columns.values(made.columns["x"]).tolist() == [0, -5, -8, -13]


def test_a_stage_of_ones_own_sees_none_and_may_give_it(tmp_path: Path) -> None:
    """It decides itself what an answer without a score means."""
    (tmp_path / "own.py").write_text("def same(rows):\n    return [row['reward'] for row in rows]\n")
    spec = pipeline(Stage("own", "own.py:same", reads=("roll.rollout", "right.reward"), writes=("advantage",)))
    (made,) = custom(partition(tmp_path, spec, "own", known(right=[1.0, np.nan, 1.0, 0.0])))
    assert columns.values(made.columns["advantage"]).tolist() == pytest.approx([1.0, np.nan, 1.0, 0.0], nan_ok=True)
    assert made.groups == ((2, 1), (4, 2))


def test_a_row_tells_how_a_completion_ended_and_its_tokens(tmp_path: Path) -> None:
    """Who gives credit to tokens has to know which they are, and how likely the sampler found them."""
    own = Stage("own", "own.py:f", writes=["x"])
    body = "return [r['finished'] - r['truncated'] + sum(r['token_ids']) + sum(r['logprobs']) for r in rows]"
    assert columns.values(made_by(tmp_path, body, own).columns["x"]).tolist() == [1, 5, 9, 11]


def test_a_stage_may_give_a_number_for_each_token(tmp_path: Path) -> None:
    """Credit is a token's; one that has none leaves its whole completion out, as one number would."""
    body = "return [None if r['reward'] is None else [r['reward'], t] for r in rows for t in [float(r['group'])]]"
    made = made_by(tmp_path, body, right=(1.0, np.nan, 1.0, 0.0))
    assert columns.lengths(made.columns["advantage"]).tolist() == [2, 2, 2, 2]
    given = columns.values(made.columns["advantage"]).tolist()
    assert given == pytest.approx([1, 0, np.nan, np.nan, 1, 1, 0, 1], nan_ok=True)
    assert made.groups == ((2, 1), (4, 2))


def test_a_later_stage_reads_lists_where_an_earlier_one_gave_them(tmp_path: Path) -> None:
    """Also one whose completion has none."""
    (tmp_path / "own.py").write_text("def f(rows):\n    return [len(r['advantage'] or []) for r in rows]\n")
    (tmp_path / "first.py").write_text("")
    first = Stage("first", "first.py:f", writes=["advantage"], per_token=["advantage"])
    spec = pipeline(first, Stage("own", "own.py:f", reads=["first.advantage"], writes=["x"]))
    given = columns.pack(np.array([1, 2, np.nan, np.nan, 3, 4, 5, 6], np.float32), np.full(4, 2))
    (made,) = custom(partition(tmp_path, spec, "own", known() | {"first.advantage": {"advantage": given}}))
    assert columns.values(made.columns["x"]).tolist() == [2, 0, 2, 2]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("return [[1.0]] * 4", "`advantage` of row 0 gave 1 values where a list of 2 numbers is due"),
        ("return [1.0] * 4", "`advantage` of row 0 gave 1.0 where a list of 2 numbers is due"),
        ("return [[1.0, 2.0]] * 3", "`advantage` gave 3 values where a list of 4 lists is due"),
        ("return [[1.0, float('nan')]] * 4", "`advantage` of row 0 gave nan where a finite number is due"),
        ("return [[1.0, None]] * 4", r"`advantage` of row 0 gave nothing \(None\) where a finite number is due"),
    ],
)
def test_what_are_no_numbers_for_all_tokens_is_told_with_its_row(tmp_path: Path, body: str, error: str) -> None:
    with pytest.raises(UserError, match=error):
        made_by(tmp_path, body)
