"""What a reward model says of completions, and what a reference measures of who sampled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from dflow_protocols.pipeline import Stage
from dflowd.data import columns
from dflowd.models.policy import Policy
from dflowd.operators.reading import logprob, reward_model
from dflowd.shards.layout import ragged
from tests.support.repository import EXAMPLES
from tests.unit.dflowd.operators.partitions import known, partition, pipeline

SAID = [[7, 8, 1], [9], [10, 11, 12, 13], [7, 1]]
PROMPTS = [[5, 6], [4, 9, 5]]


def test_a_completion_is_scored_as_transformers_scores_its_text(tmp_path: Path) -> None:
    """Without its last token, which is the end token of one that was not cut off."""
    config = {"init": {"config": "spell_llama.json", "tokenizer": "spell_tokenizer/"}, "head": "value"}
    judge = Policy("judge", config, EXAMPLES, 5)
    with torch.no_grad():
        judge.model.score.weight.normal_(generator=torch.Generator().manual_seed(1))
    judge.save(tmp_path / "judge")
    theirs: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path / "judge")
    inputs = known()
    rollout = {**inputs["roll.rollout"], "prompt": ragged("i32", PROMPTS), "tokens": ragged("i32", SAID)}
    spec = pipeline(rewards={"right": 1.0, "short": 1.0})
    judged = Stage("judged", "reward_model", "judge", reads=["roll.rollout"], writes=["reward"])
    asked = partition(tmp_path, spec, "roll", {**inputs, "roll.rollout": rollout})
    made = reward_model(replace(asked, stage=judged, policy=lambda name: judge))
    expected = [
        theirs(torch.tensor([[*PROMPTS[row // 2], *said[:-1]]])).logits[0, 0].item() for row, said in enumerate(SAID)
    ]
    assert columns.values(made.columns["reward"]).tolist() == pytest.approx(expected, rel=1e-4)
    assert made.metrics["rewarded"] == 4
    assert made.metrics["reward_sum"] == pytest.approx(np.sum(expected), rel=1e-4)


@pytest.mark.parametrize("is_followed", [True, False])
def test_a_reference_measures_the_divergence_that_a_weight_follows(tmp_path: Path, is_followed: bool) -> None:
    """Over the tokens that the policy said itself, of all completions; where nothing follows it the record of the
    stage, and with it all later ids, are what they were."""
    config = {"init": {"config": "spell_llama.json", "tokenizer": "spell_tokenizer/"}}
    base = Policy("base", config, EXAMPLES, 5)
    inputs = known()
    sampled = [[-1.0, -2.0, -3.0], [-4.0], [-1.0, -1.0, -2.0, -2.0], [-3.0, -0.5]]
    own = [[1, 0, 1], [1], [1, 1, 1, 1], [1, 1]]
    rollout = {
        **inputs["roll.rollout"],
        "prompt": ragged("i32", PROMPTS),
        "tokens": ragged("i32", SAID),
        "logprobs": ragged("f32", sampled),
        "mask": ragged("u8", own),
    }
    follows = {"kl_target": 0.1} if is_followed else {}
    spec = pipeline(
        Stage("ref", "logprob", "base"), rewards={"right": 1.0, "short": 0.0}, method="rloo", kl=0.5, **follows
    )
    asked = partition(tmp_path, spec, "ref", {**inputs, "roll.rollout": rollout})
    made = logprob(replace(asked, policy=lambda name: base))
    scored = np.concatenate(columns.rows(made.columns["logprob"])).astype(np.float64)
    mask = np.concatenate(own).astype(bool)
    due = (np.concatenate(sampled) - scored)[mask].sum()
    measured = {"reference_kl_sum": pytest.approx(due), "reference_kl_count": 9, "reference_kl_samples": 4}
    assert made.metrics == (measured if is_followed else {})
