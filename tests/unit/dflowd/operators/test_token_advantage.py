"""A critic's values, and what becomes of them: advantages and returns of each token."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dflow_protocols.pipeline import Pipeline, Stage
from dflowd.data import columns
from dflowd.jobs.failures import UserError
from dflowd.models.policy import Policy
from dflowd.operators.partition import Columns, Output
from dflowd.operators.registry import operate
from dflowd.shards.layout import ragged
from tests.support.repository import EXAMPLES

from .partitions import ROLL, known, partition

VALUES = np.array([0.5, 0.25, 0, 0.5, 1, 1, -1, 0], np.float32)

MODELS = {"policy": {"path": "model/"}, "base": {"path": "base/"}, "critic": {"path": "model/", "head": "value"}}


def pipeline(*between: Stage, **adv: Any) -> Pipeline:
    adamw = {"adamw": {"lr": 1e-3}}
    return Pipeline(
        name="mine",
        steps=1,
        models=MODELS,
        data={"words": {"jsonl": "words.jsonl"}},
        stages=[
            Stage("roll", "generate", "policy", config=ROLL),
            Stage("right", "reward"),
            Stage("ref", "logprob", "base"),
            Stage("guess", "value", "critic"),
            *between,
            Stage("adv", "advantage", config={"method": "gae", **adv}),
            Stage("fit", "train", "critic", config={"leaves": 1, "loss": {"kind": "value"}, "optimizer": adamw}),
        ],
    )


def inputs(right: list[float]) -> dict[str, Columns]:
    return known(right=right) | {"guess.value": {"value": columns.pack(VALUES, np.full(4, 2))}}


def made(folder: Path, right: list[float], **adv: Any) -> tuple[Output, Output]:
    advantage, came = operate(partition(folder, pipeline(**adv), "adv", inputs(right)))
    assert (advantage.name, came.name) == ("advantage", "return")
    return advantage, came


def numbers(output: Output) -> list[float]:
    found: list[float] = columns.values(output.columns[output.name]).tolist()
    return found


def test_a_completion_earns_its_reward_at_its_last_token(tmp_path: Path) -> None:
    """With lam 1 every token of it has the reward for its return, and what the critic did not expect as advantage."""
    advantage, came = made(tmp_path, [1.0, 0.0, 1.0, 0.0], lam=1.0)
    assert numbers(came) == [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    assert numbers(advantage) == [0.5, 0.75, 0.0, -0.5, 0.0, 0.0, 1.0, 0.0]
    assert advantage.groups == ((4, 2), (4, 2))
    assert (advantage.metrics["advantage_max"], advantage.metrics["advantage_min"]) == (1.0, -0.5)


def test_each_token_pays_for_its_distance_from_the_reference(tmp_path: Path) -> None:
    """As InstructGPT has it: in the reward, so that the critic learns what is still to be paid as well."""
    advantage, came = made(tmp_path, [1.0, 0.0, 1.0, 0.0], lam=1.0, kl=0.5)
    apart = -0.5 + np.arange(8)  # to the sampler each was as likely as e^-0.5, to the reference as e^-0, e^-1, ...
    first = 1.0 - 0.5 * (apart[0] + apart[1])
    assert numbers(came)[:2] == [first, first + 0.5 * apart[0]]
    assert advantage.metrics["reward_kl_sum"] == apart.sum()
    assert advantage.metrics["reward_kl_count"] == 8


def test_a_step_is_whitened_by_its_tokens_and_the_critic_learns_what_came(tmp_path: Path) -> None:
    """The sums say what the whole step is whitened by, and a return is no difference of whitened numbers."""
    advantage, came = made(tmp_path, [1.0, float("nan"), 1.0, 0.0], lam=1.0, whiten=True)
    known = np.array([0.5, 0.75, 0.0, 0.0, 1.0, 0.0])
    assert np.array_equal(np.array(numbers(advantage))[[0, 1, 4, 5, 6, 7]], known)
    assert (advantage.metrics["whitened_count"], advantage.metrics["whitened_sum"]) == (6, known.sum())
    assert advantage.metrics["whitened_sq_sum"] == np.square(known).sum()
    assert numbers(came)[:2] == [1.0, 1.0]


def test_what_an_environment_says_lies_between_two_states_of_a_critic(tmp_path: Path) -> None:
    """An answer's reward is its last own token's, and a turn goes on where the model speaks again."""
    given = inputs([1.0, 0.0, 1.0, 0.0])
    mask = columns.pack(np.array([1, 0, 1, 1, 0, 1, 1, 1], np.uint8), np.full(4, 2))
    given["roll.rollout"] = {**given["roll.rollout"], "mask": mask}
    advantage, came = operate(partition(tmp_path, pipeline(lam=1.0), "adv", given))
    assert numbers(came) == [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    assert numbers(advantage) == [0.5, 0.0, 0.0, -0.5, 0.0, 0.0, 1.0, 0.0]
    assert advantage.groups == ((3, 2), (3, 2))


def test_a_completion_without_a_score_is_left_out_of_training(tmp_path: Path) -> None:
    """Whole: its group's other completions are trained on, since none is compared with it."""
    advantage, _ = made(tmp_path, [1.0, float("nan"), 1.0, 0.0])
    assert np.isnan(numbers(advantage)).tolist() == [False, False, True, True, False, False, False, False]
    assert advantage.groups == ((2, 1), (4, 2))


def test_what_a_filter_does_not_keep_teaches_no_critic(tmp_path: Path) -> None:
    """A critic that learnt from it would expect what the policy is not trained on."""
    spec = pipeline(Stage("keep", "filter", config={"function": "dflowd.operators.filter:pass_rate"}))
    given = inputs([1.0, 0.0, 1.0, 1.0]) | {"keep.kept": {"kept": columns.pack(np.array([1, 1, 0, 0], np.float32))}}
    advantage, came = operate(partition(tmp_path, spec, "adv", given))
    assert advantage.groups == ((4, 2), (0, 0))
    assert np.isnan(numbers(came)).tolist() == [False] * 4 + [True] * 4


def test_a_value_is_of_the_state_that_a_token_is_said_from(tmp_path: Path) -> None:
    """The first one is of the prompt alone, and none is of what is behind the last token."""
    config = {"init": {"config": "spell_llama.json", "tokenizer": "spell_tokenizer/"}, "head": "value"}
    critic = Policy("critic", config, EXAMPLES, 5)
    with torch.no_grad():
        critic.model.score.weight.copy_(torch.arange(256.0)[None, :] / 256)
    part = replace(partition(tmp_path, pipeline(), "guess", known()), policy=lambda name: critic)
    (output,) = operate(part)
    found = columns.rows(output.columns["value"])
    for prompt, said, ours in zip((1, 1, 2, 2), np.arange(8).reshape(4, 2), found, strict=True):
        states = critic.body(input_ids=torch.tensor([[prompt, said[0]]])).last_hidden_state
        assert ours.tolist() == pytest.approx(critic.values(states)[0].tolist(), abs=1e-5)


def test_tokens_that_a_critic_cannot_read_are_named(tmp_path: Path) -> None:
    """Another tokenizer's tokens would be an index error in some layer."""
    config = {"init": {"config": "spell_llama.json", "tokenizer": "spell_tokenizer/"}, "head": "value"}
    critic = Policy("critic", config, EXAMPLES, 5)
    critic.rows = 7
    part = replace(partition(tmp_path, pipeline(), "guess", known()), policy=lambda name: critic)
    with pytest.raises(UserError, match="token 7 of a text is beyond the vocabulary of 7 of model `critic`"):
        operate(part)


def test_without_a_critic_a_token_has_all_that_came_from_it_on(tmp_path: Path) -> None:
    """REINFORCE++: the reward, less what it and the later tokens pay; whitened by the step's other tokens later."""
    stages = [stage for stage in pipeline().stages if stage.id in ("roll", "right", "ref")]
    adv = Stage("adv", "advantage", config={"method": "reinforce", "kl": 0.5, "whiten": True})
    learn = Stage("learn", "train", "policy", config={"leaves": 1, "optimizer": {"adamw": {"lr": 1e-3}}})
    spec = Pipeline("mine", 1, MODELS, [*stages, adv, learn], {"words": {"jsonl": "words.jsonl"}})
    assert spec.stage("adv").reads == ["roll.rollout", "right.reward", "ref.logprob"]
    (output,) = operate(partition(tmp_path, spec, "adv", known(right=[1.0, 0.0, float("nan"), 0.0])))
    apart = -0.5 + np.arange(8)
    first = 1 - 0.5 * apart[:2].sum()
    assert numbers(output)[:4] == [first, first + 0.5 * apart[0], -0.5 * apart[2:4].sum(), -0.5 * apart[3]]
    assert output.groups == ((4, 2), (2, 1))
    assert output.metrics["whitened_count"] == 6


def test_a_student_is_told_how_much_likelier_its_teacher_finds_each_token(tmp_path: Path) -> None:
    """The reverse KL at that token, and nothing of what comes later; whatever it would have earned."""
    stages = [stage for stage in pipeline().stages if stage.id in ("roll", "ref")]
    learn = Stage("learn", "train", "policy", config={"leaves": 1, "optimizer": {"adamw": {"lr": 1e-3}}})
    adv = Stage("adv", "advantage", config={"method": "distill", "mask_truncated": True})
    spec = Pipeline("mine", 1, MODELS, [*stages, adv, learn], {"words": {"jsonl": "words.jsonl"}})
    (output,) = operate(partition(tmp_path, spec, "adv", known()))
    assert numbers(output)[:6] == (0.5 - np.arange(6)).tolist()
    assert output.groups == ((4, 2), (2, 1))  # the last one was cut off
    assert output.metrics["reward_kl_sum"] == (np.arange(8) - 0.5).sum()


def test_tokens_have_their_turns_advantage_and_an_environments_have_none(tmp_path: Path) -> None:
    """By what the environment gave: in the first group for two turns and for one, in the second without a score."""
    config = {**ROLL, "environment": {"class": "game.py:Game", "turns": 2}}
    learn = Stage("learn", "train", "policy", config={"leaves": 1, "optimizer": {"adamw": {"lr": 1e-3}}})
    adv = Stage("adv", "advantage", config={"method": "turns", "scale": "none", "whiten": True})
    stages = [Stage("roll", "generate", "policy", config=config), adv, learn]
    spec = Pipeline("mine", 1, {"policy": {"path": "model/"}}, stages, {"words": {"jsonl": "words.jsonl"}})
    given = known()
    lengths = np.array([3, 2, 2, 1])
    given["roll.rollout"] = {
        **given["roll.rollout"],
        "tokens": columns.pack(np.arange(8, dtype=np.int32), lengths),
        "turn": columns.pack(np.array([0, -1, 1, 0, 0, 0, 0, 0], np.int32), lengths),
        "turn_reward": ragged("f32", [[0.5, 1.0], [0.5], [float("nan")], [2.0]]),
    }
    (output,) = operate(partition(tmp_path, spec, "adv", given))
    assert numbers(output)[:5] == [0.5, 0.0, 0.0, -0.5, -0.5]
    assert np.isnan(numbers(output)[5:7]).all()
    assert numbers(output)[7] == 0.0
    assert output.groups == ((4, 2), (1, 1))
    assert output.metrics["whitened_count"] == 5
