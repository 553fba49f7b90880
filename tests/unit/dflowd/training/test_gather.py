"""What a leaf is given: each input goes where its stage says, and none is taken for another."""

from __future__ import annotations

import numpy as np
import pytest

from dflow_protocols.pipeline import Pipeline, Stage
from dflow_protocols.pipeline.grammar.columns import COLUMNS
from dflow_protocols.work import LeafGroups
from dflowd.data import columns
from dflowd.shards.layout import Column, ragged
from dflowd.training.gather import leaf_data

ADAMW = {"adamw": {"lr": 1e-3}}
SAMPLED, OWN, REFERENCE = -1.0, -2.0, -3.0


@pytest.mark.parametrize("reads", [[], ["own"], ["ref"], ["own", "ref"], ["ref", "own"]])
def test_each_log_probability_goes_where_its_model_says(reads: list[str]) -> None:
    """The trainer's own view replaces the sampler's, another model's is the reference; both may be read at once."""
    models = {"policy": {"path": "model/"}, "start": {"path": "model/"}}
    pipeline = Pipeline(
        name="mine",
        steps=1,
        models=models,
        data={"words": {"jsonl": "words.jsonl"}},
        stages=[
            Stage("roll", "generate", "policy", config={"data": "words", "prompts": 1, "group": 2, "max_tokens": 2}),
            Stage("score", "reward"),
            Stage("adv", "advantage"),
            Stage("own", "logprob", "policy"),
            Stage("ref", "logprob", "start"),
            Stage(
                "learn",
                "train",
                "policy",
                reads=[f"{name}.logprob" for name in reads],
                config={"leaves": 1, "optimizer": ADAMW},
            ),
        ],
    )

    def each(value: float) -> Column:
        return columns.pack(np.full(4, value, np.float32), np.full(2, 2))

    tokens = columns.pack(np.arange(4, dtype=np.int32), np.full(2, 2))
    inputs = {
        (0, "roll.rollout"): {"prompt": ragged("i32", [[1]]), "tokens": tokens, "logprobs": each(SAMPLED)},
        (0, "adv.advantage"): {"advantage": columns.pack(np.array([1, -1], np.float32))},
        (0, "own.logprob"): {"logprob": each(OWN)},
        (0, "ref.logprob"): {"logprob": each(REFERENCE)},
    }
    data = leaf_data(pipeline, pipeline.stage("learn"), LeafGroups(0, ((0, 0, 1),)), inputs)
    expected = OWN if "own" in reads else SAMPLED
    old = data.columns.get("old_logprob", data.columns["sampled_logprob"])
    assert np.concatenate(old).tolist() == [expected] * 4
    references = data.columns.get("logprob", [])
    assert [row.tolist() for row in references] == ([[REFERENCE] * 2] * 2 if "ref" in reads else [])
    assert list(data.columns["advantage"]) == [1, -1]


def test_a_token_may_have_an_advantage_of_its_own() -> None:
    """One that is no number leaves the completion out, with whatever else is known of it."""
    own = Stage("own", "own.py:f", writes=["advantage"], per_token=["advantage"])
    roll = Stage("roll", "generate", "policy", config={"data": "words", "prompts": 1, "group": 2, "max_tokens": 2})
    learn = Stage("learn", "train", "policy", config={"leaves": 1, "optimizer": ADAMW})
    data = {"words": {"jsonl": "words.jsonl"}}
    pipeline = Pipeline("mine", 1, {"policy": {"path": "model/"}}, [roll, own, learn], data)
    rows = np.full(2, 2)
    inputs = {
        (0, "roll.rollout"): {
            "prompt": ragged("i32", [[1]]),
            "tokens": columns.pack(np.arange(4, dtype=np.int32), rows),
            "logprobs": columns.pack(np.zeros(4, np.float32), rows),
        },
        (0, "own.advantage"): {"advantage": columns.pack(np.array([np.nan, np.nan, 2, -3], np.float32), rows)},
    }
    found = leaf_data(pipeline, pipeline.stage("learn"), LeafGroups(0, ((0, 0, 1),)), inputs)
    assert [row.tolist() for row in found.completions] == [[2, 3]]
    assert [row.tolist() for row in found.columns["advantage"]] == [[2, -3]]
    assert len(found.columns["sampled_logprob"]) == 1


def test_each_token_knows_how_far_the_version_that_said_it_is_behind() -> None:
    """A rollout names versions by number; what trains goes by the distance."""
    roll = Stage("roll", "generate", "policy", config={"data": "words", "prompts": 1, "group": 2, "max_tokens": 2})
    adv, learn = Stage("adv", "advantage"), Stage("learn", "train", "policy", config={"leaves": 1, "optimizer": ADAMW})
    stages, data = [roll, Stage("score", "reward"), adv, learn], {"words": {"jsonl": "words.jsonl"}}
    pipeline = Pipeline("loose", 8, {"policy": {"path": "model/"}}, stages, data)
    rows = np.full(2, 2)
    inputs = {
        (0, "roll.rollout"): {
            "prompt": ragged("i32", [[1]]),
            "tokens": columns.pack(np.arange(4, dtype=np.int32), rows),
            "logprobs": columns.pack(np.zeros(4, np.float32), rows),
            "version": columns.pack(np.array([5, 6, 5, 7], np.int32), rows),
        },
        (0, "adv.advantage"): {"advantage": columns.pack(np.array([1, -1], np.float32))},
    }
    found = leaf_data(pipeline, pipeline.stage("learn"), LeafGroups(0, ((0, 0, 1),)), inputs, version=7)
    assert [row.tolist() for row in found.columns["version_gap"]] == [[2, 1], [2, 0]]
    assert found.columns.keys() <= COLUMNS.keys(), "where a loss looks for them"
