"""Models of many architectures say here what they say by themselves, or are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AttentionMaskInterface

from dflowd.engines.contract import Engine
from dflowd.jobs.failures import UserError
from dflowd.models import attention
from dflowd.models.policy import Policy
from dflowd.models.proof import require_own_numbers
from dflowd.models.sampling import Sampler, sample, seats_of
from tests.support import zoo

KINDS = {**zoo.ARCHITECTURES, **zoo.ON_DISK}


@pytest.fixture(scope="module")
def engine() -> Engine:
    from dflowd.engines.registry import open_engine

    return open_engine("torch")


@pytest.mark.parametrize("name", KINDS)
def test_what_is_sampled_trained_and_saved_is_the_models_own(name: str, engine: Engine, tmp_path: Path) -> None:
    """Log-probabilities that are not the model's train another policy, and nothing in a run's curves tells."""
    kind = KINDS[name]
    (tmp_path / "words.jsonl").write_text(json.dumps({"prompt": "a", "answer": "b"}) + "\n")
    found = zoo.examine(engine, zoo.write(kind, tmp_path / "model"))
    assert found.sampled < 2e-5
    assert found.trained < 2e-5
    assert found.gradient < 1e-5
    assert found.checkpoint
    assert found.export
    assert found.ends == (kind.ends or (2,))


def refusal(kind: zoo.Kind, folder: Path) -> str:
    """What a run's owner is told when an engine opens such a model."""
    with pytest.raises(UserError) as told:
        require_own_numbers(zoo.opened_from_config(kind, folder))
    return str(told.value)


@pytest.mark.parametrize("name", zoo.REFUSED)
def test_a_model_that_cannot_be_computed_right_is_refused_when_it_is_opened(name: str, tmp_path: Path) -> None:
    """Its type and the reason are told, before anything was sampled."""
    kind, reason = zoo.REFUSED[name]
    told = refusal(kind, tmp_path)
    assert reason in told
    assert kind.model_type in told


@pytest.mark.parametrize(
    "kind",
    [
        zoo.Kind("bloom", {"n_head": 4}),
        zoo.Kind("falcon", {"alibi": True}),
        zoo.Kind("mamba"),
        zoo.Kind("bert"),
        zoo.Kind("lfm2", {"layer_types": ["conv", "full_attention"]}),
        zoo.Kind("qwen3_next", {"head_dim": 8, "num_experts": 4}),
    ],
    ids=lambda kind: str(kind.model_type),
)
def test_a_model_that_no_list_names_is_refused_by_its_numbers(
    kind: zoo.Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Architectures come out faster than any list of them is written."""
    monkeypatch.setattr("dflowd.models.description.unsupported", lambda config: ())
    assert kind.model_type in refusal(kind, tmp_path)


def test_a_window_that_no_mask_heeds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One mask for all layers is right until a text outgrows the window, so the proof makes windows short."""
    zoo.write(zoo.ARCHITECTURES["Gemma 3, windows in half of its layers"], tmp_path / "model")
    policy = Policy("policy", {"path": "model"}, tmp_path, 0)
    require_own_numbers(policy)
    assert policy.model.config.sliding_window == zoo.WINDOW  # as it was

    def one_for_all(kv_length: int, kv_offset: int = 0, **rest: object) -> torch.Tensor:
        sight = attention._SIGHT.get()
        assert isinstance(sight, attention.Sight)
        return sight.seen[:, None, :, kv_offset : kv_offset + kv_length]

    monkeypatch.setitem(AttentionMaskInterface._global_mapping, "sdpa", one_for_all)
    with pytest.raises(UserError, match="differ from its own"):
        require_own_numbers(policy)


def test_weights_that_the_config_does_not_describe_are_refused(tmp_path: Path) -> None:
    """What a file lacks would be filled up with random numbers, and what is too much left out, both in silence."""
    folder = zoo.write(zoo.Kind("llama"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    for changed in ({"num_hidden_layers": 3}, {"num_hidden_layers": 1}, {"intermediate_size": 96}):
        (folder / "config.json").write_text(json.dumps(config | changed))
        with pytest.raises(UserError, match="model"):
            Policy("policy", {"path": "model"}, tmp_path, 0)


def test_tied_or_not_is_what_the_weights_say(tmp_path: Path) -> None:
    """A config that unties what lies once in the file has a head of random numbers."""
    folder = zoo.write(zoo.Kind("llama", {"tie_word_embeddings": True}), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(UserError, match="lm_head"):
        Policy("policy", {"path": "model"}, tmp_path, 0)


def test_a_rotation_that_follows_the_longest_row_ends_where_it_begins(tmp_path: Path) -> None:
    """Beyond the first length a short text's numbers would depend on what lies beside it in the batch."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    first = {"original_max_position_embeddings": 64, "sliding_window": None}
    zoo.write(zoo.Kind("phi3", {"rope_parameters": rope, **first}), tmp_path / "model")
    policy = Policy("policy", {"path": "model"}, tmp_path, 0)
    policy.require_length(64)
    with pytest.raises(UserError, match="beyond 64"):
        sample(policy, [[5] * 60], seats_of(0, 1, 1, 5), Sampler(), lambda: None)
