"""Pairs of answers out of the data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dflow_protocols.pipeline import Pipeline, Stage
from dflowd.data import columns
from dflowd.data.order import DataSet
from dflowd.jobs.failures import UserError
from dflowd.models.policy import Policy
from dflowd.operators.partition import Partition
from dflowd.operators.registry import operate
from dflowd.shards.layout import read_texts
from tests.support.partition import first_partition
from tests.support.repository import EXAMPLES

ROWS = [{"prompt": "ab", "good": "ba", "bad": "ab"}, {"prompt": "cat", "good": "tac", "bad": "tca"}]
MODEL = {"init": {"config": "spell_llama.json", "tokenizer": "spell_tokenizer/"}}


def asked(folder: Path, rows: list[dict[str, Any]], most: int = 6) -> Partition:
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = Pipeline(
        name="mine",
        steps=2,
        models={"policy": MODEL, "reference": MODEL},
        data={"pairs": {"jsonl": "pairs.jsonl", "answer": "good", "rejected": "bad"}},
        stages=[
            Stage("pairs", "preferences", "policy", config={"data": "pairs", "prompts": 2, "max_tokens": most}),
            Stage("ref", "logprob", "reference"),
            Stage("learn", "train", "policy", config={"loss": {"kind": "dpo"}, "optimizer": {"adamw": {"lr": 1e-3}}}),
        ],
    )
    data, policy = DataSet("pairs", spec.data["pairs"], folder, 0), Policy("policy", MODEL, EXAMPLES, 5)
    return first_partition(spec, folder, "pairs", 2, data, policy=policy)


def test_each_prompt_has_its_better_answer_and_its_worse_one(tmp_path: Path) -> None:
    """As a policy's own pairs are: the better one is 1, the worse one -1, and both are trained on with their ends."""
    rollout, advantage = operate(asked(tmp_path, ROWS))
    said = read_texts(rollout.columns["text"])
    assert sorted(zip(said[::2], said[1::2], strict=True)) == [("ba", "ab"), ("tac", "tca")]
    assert columns.values(advantage.columns["advantage"]).tolist() == [1, -1, 1, -1]
    lengths = columns.lengths(rollout.columns["tokens"]).tolist()
    assert advantage.groups == ((lengths[0] + lengths[1], 2), (lengths[2] + lengths[3], 2))
    assert sorted(lengths) == [3, 3, 4, 4]
    assert "logprobs" not in rollout.columns


def test_steps_go_through_the_rows(tmp_path: Path) -> None:
    """As prompts do: all of them before any comes again."""
    rows = [{"prompt": text, "good": text, "bad": text[::-1]} for text in ("ab", "cd", "ef", "gh")]
    one = asked(tmp_path, rows)
    found = [read_texts(operate(replace(one, step=step))[0].columns["text"])[::2] for step in (0, 1)]
    assert sorted(found[0] + found[1]) == ["ab", "cd", "ef", "gh"]


def test_an_answer_that_is_too_long_is_told_with_its_line(tmp_path: Path) -> None:
    """Cut off it would be another answer than the one that was preferred."""
    with pytest.raises(UserError, match=r"pairs.jsonl:2: an answer of 4 tokens is longer than `max_tokens`, 3"):
        operate(asked(tmp_path, ROWS, most=3))
