"""A critic: a language model's body with one row over it, which says what is still to come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from dflowd.jobs.failures import UserError
from dflowd.models.likelihood import values
from dflowd.models.packing import micro_batches
from dflowd.models.policy import Policy
from dflowd.models.proof import require_own_numbers
from tests.support.repository import EXAMPLES
from tests.support.zoo import ARCHITECTURES, write

INIT = {"init": {"config": "spell_llama.json", "tokenizer": "spell_tokenizer/"}}


@pytest.fixture
def critic() -> Policy:
    return Policy("critic", INIT | {"head": "value"}, EXAMPLES, 5)


def parameters_of(model: Policy) -> dict[str, Any]:
    return {name: each.detach().numpy().copy() for name, each in model.model.named_parameters()}


def test_a_fresh_critic_expects_nothing(critic: Policy) -> None:
    """So that the first advantages are the returns, and not what chance says."""
    prompts, said = [np.array([5, 6], np.int32)], [np.array([7, 8, 9], np.int32)]
    (batch,) = micro_batches(prompts, [0], said, 64, False)
    assert values(critic, batch).tolist() == [0.0, 0.0, 0.0]
    assert "lm_head.weight" not in parameters_of(critic)
    require_own_numbers(critic)


def test_a_critic_is_saved_as_a_reward_model_and_opened_again(critic: Policy, tmp_path: Path) -> None:
    """transformers, TRL and this project read the same folder; a run goes on from another one's critic by `path`."""
    with torch.no_grad():
        critic.model.score.weight.fill_(0.25)
    critic.save(tmp_path)
    again = Policy("critic", {"path": str(tmp_path), "head": "value"}, tmp_path, 9)
    for name, each in parameters_of(critic).items():
        assert np.array_equal(each, parameters_of(again)[name])
    theirs: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert theirs.config.num_labels == 1
    tokens = torch.tensor([[5, 6, 7, 8]])
    (batch,) = micro_batches([np.array([5, 6, 7, 8], np.int32)], [0], [np.array([9], np.int32)], 64, False)
    assert values(again, batch).tolist() == pytest.approx(theirs(tokens).logits[0].tolist(), rel=1e-5)


def test_a_critic_may_begin_as_the_policy_does(tmp_path: Path) -> None:
    """The policy's folder has no such head: it is laid on, and the body is the policy's."""
    policy = Policy("policy", INIT, EXAMPLES, 5)
    policy.save(tmp_path)
    critic = Policy("critic", {"path": str(tmp_path), "head": "value"}, tmp_path, 9)
    found = parameters_of(critic)
    assert not found.pop("score.weight").any()
    assert all(np.array_equal(each, parameters_of(policy)[name]) for name, each in found.items())


def test_a_body_that_lacks_weights_is_refused_as_a_critic_too(tmp_path: Path) -> None:
    """Only the head may be new; else transformers would fill a body up with random numbers."""
    policy = Policy("policy", INIT, EXAMPLES, 5)
    policy.config.num_hidden_layers += 1
    policy.save(tmp_path)
    with pytest.raises(UserError, match=r"missing weights, such as model\.layers"):
        Policy("critic", {"path": str(tmp_path), "head": "value"}, tmp_path, 9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Qwen2, tied", "Gemma 3, windows in half of its layers", "GPT-2", "OPT", "Mixtral"])
def test_critics_of_other_architectures_say_their_own_numbers(name: str, tmp_path: Path) -> None:
    """Texts that share a row get the states of each by itself."""
    write(ARCHITECTURES[name], tmp_path)
    critic = Policy("critic", {"path": str(tmp_path), "head": "value"}, tmp_path, 3)
    require_own_numbers(critic)
    assert not parameters_of(critic)["score.weight"].any()
