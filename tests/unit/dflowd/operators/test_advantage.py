"""Rewards of several stages: added up by their weights, told apart wherever they are shown or handed on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dflow_protocols.pipeline import Pipeline, Stage
from dflowd.data import columns
from dflowd.data.order import DataSet
from dflowd.engines.samples import samples_of
from dflowd.jobs.failures import UserError
from dflowd.jobs.limits import Limits
from dflowd.operators.advantage import advantage
from dflowd.operators.custom import custom
from dflowd.operators.partition import Columns, Partition
from dflowd.shards.layout import ragged, texts
from dflowd.workers.pool import Pool

RIGHT = [1.0, 0.0, 1.0, 0.0]
SHORT = [0.0, 1.0, 1.0, 0.0]
ROLL = {"data": "words", "prompts": 2, "group": 2, "max_tokens": 2}


def pipeline(*between: Stage, **adv: Any) -> Pipeline:
    """Two rewards; `adv`: the advantage's config."""
    return Pipeline(
        name="mine",
        steps=1,
        models={"policy": {"path": "model/"}},
        data={"words": {"jsonl": "words.jsonl"}},
        stages=[
            Stage("roll", "generate", "policy", config=ROLL),
            Stage("right", "reward"),
            Stage("short", "reward", config={"function": "judge.py:short"}),
            *between,
            Stage("adv", "advantage", config=adv),
            Stage("learn", "train", "policy", config={"leaves": 1, "optimizer": {"adamw": {"lr": 1e-3}}}),
        ],
    )


def known(right: list[float] = RIGHT, short: list[float] = SHORT) -> dict[str, Columns]:
    """What was made of two prompts with two completions each, two tokens long."""
    tokens = columns.pack(np.arange(8, dtype=np.int32), np.full(4, 2))
    rollout = {
        "position": columns.pack(np.array([0, 1], np.int64)),
        "prompt": ragged("i32", [[1], [2]]),
        "tokens": tokens,
        "text": texts(["a", "b", "c", "d"]),
        "truncated": columns.pack(np.zeros(4, np.uint8)),
    }
    scored = {"logprob": columns.pack(-np.arange(8, dtype=np.float32), np.full(4, 2))}
    given = {"right": right, "short": short}
    rewards = {
        f"{stage}.reward": {"reward": columns.pack(np.array(values, np.float32))} for stage, values in given.items()
    }
    return {"roll.rollout": rollout, "ref.logprob": scored, **rewards}


def partition(folder: Path, spec: Pipeline, stage: str, inputs: dict[str, Columns]) -> Partition:
    (folder / "words.jsonl").write_text('{"prompt": "p", "answer": "a"}\n')
    data = DataSet("words", spec.data["words"], folder, 0)

    def policy(name: str) -> Any:
        raise AssertionError("this needs no model")

    pool = Pool(folder, Limits())
    return Partition(
        spec, folder, 0, spec.stage(stage), 0, 2, inputs, policy, lambda name: data, lambda: None, pool=lambda: pool
    )


def test_weighed_rewards_are_added_up_before_they_are_compared(tmp_path: Path) -> None:
    """The second thing that every user does."""
    spec = pipeline(rewards={"right": 1.0, "short": 0.5}, scale="none")
    made = advantage(partition(tmp_path, spec, "adv", known()))
    assert columns.values(made.columns["advantage"]).tolist() == [0.25, -0.25, 0.75, -0.75]
    assert (made.metrics["reward_sum"], made.metrics["rewarded"]) == (3.0, 4)


def test_a_weight_of_0_measures_and_does_not_train(tmp_path: Path) -> None:
    spec = pipeline(rewards={"right": 1.0, "short": 0.0}, drop_flat_groups=True)
    made = advantage(partition(tmp_path, spec, "adv", known(right=[1, 1, 1, 0])))
    assert made.metrics["groups_zero_std"] == 1
    assert made.groups == ((0, 0), (4, 2))


def test_rewards_that_cancel_are_flat_within_the_rounding_of_their_parts(tmp_path: Path) -> None:
    """100.1 less 100.1 leaves the rounding of 100.1, which is large beside 0 and nothing beside its parts."""
    spec = pipeline(rewards={"right": 1.0, "short": -1.0}, drop_flat_groups=True)
    inputs = known(right=[100.1, 100.2, 1, 0], short=[100.1, 100.20001, 0, 0])
    made = advantage(partition(tmp_path, spec, "adv", inputs))
    assert made.groups == ((0, 0), (4, 2))


@pytest.mark.parametrize(
    ("rewards", "right", "error"),
    [
        ({"right": 1e3, "short": 1.0}, [3e38, 0, 0, 0], "the rewards of `right` and `short`, weighed, come to 3e.41"),
        ({"right": 1.0, "short": 0.0}, [1e38, -1e38, 0, 0], "an advantage of 1e.38, whose sums are more than float32"),
    ],
)
def test_sums_beyond_float32_are_laid_to_the_stage(
    tmp_path: Path, rewards: dict[str, float], right: list[float], error: str
) -> None:
    """Each reward is a number, and what they come to is none."""
    spec = pipeline(rewards=rewards, scale="none")
    with pytest.raises(UserError, match=error) as caught:
        advantage(partition(tmp_path, spec, "adv", known(right=right)))
    assert caught.value.stage == "adv"


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


def test_samples_show_each_reward_and_what_is_trained_on(tmp_path: Path) -> None:
    """Whoever reads them asks first which of the two went wrong."""
    spec = pipeline(rewards={"right": 1.0, "short": 0.5})
    first, second = samples_of(spec, known(), partition(tmp_path, spec, "adv", {}).data)
    assert (first["reward"], first["rewards"]) == (1.0, {"right": 1.0, "short": 0.0})
    assert (second["reward"], second["rewards"]) == (1.5, {"right": 1.0, "short": 1.0})


def test_a_completion_without_a_score_is_neither_compared_nor_trained_on(tmp_path: Path) -> None:
    """What a judge could not score must not count as bad, nor move the mean that others are held against."""
    spec = pipeline(rewards={"right": 1.0, "short": 0.0}, scale="none")
    made = advantage(partition(tmp_path, spec, "adv", known(right=[1.0, np.nan, 1.0, 0.0])))
    assert columns.values(made.columns["advantage"]).tolist() == pytest.approx([0.0, np.nan, 0.5, -0.5], nan_ok=True)
    assert made.groups == ((2, 1), (4, 2))
    none = advantage(partition(tmp_path, spec, "adv", known(right=[np.nan, np.nan, 1.0, 0.0])))
    assert none.groups == ((0, 0), (4, 2))


def test_a_stage_of_ones_own_sees_none_and_may_give_it(tmp_path: Path) -> None:
    """It decides itself what an answer without a score means."""
    (tmp_path / "own.py").write_text("def same(rows):\n    return [row['reward'] for row in rows]\n")
    spec = pipeline(Stage("own", "own.py:same", reads=("roll.rollout", "right.reward"), writes=("advantage",)))
    (made,) = custom(partition(tmp_path, spec, "own", known(right=[1.0, np.nan, 1.0, 0.0])))
    assert columns.values(made.columns["advantage"]).tolist() == pytest.approx([1.0, np.nan, 1.0, 0.0], nan_ok=True)
    assert made.groups == ((2, 1), (4, 2))
