"""What a model's files say of it, before anything is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from dflow_protocols.pipeline.models import (
    context_of,
    end_tokens,
    rotation_limit,
    rules_of_sampling,
    scale_of_logits,
    unsupported,
)

LLAMA = {"model_type": "llama", "max_position_embeddings": 2048, "vocab_size": 100}


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"model_type": "gemma2"}, "final_logit_softcapping"),
        ({"model_type": "gemma3_text", "final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"model_type": "llama", "attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({"model_type": "gpt_oss", "layer_types": ["sliding_attention"]}, "attention sinks"),
        ({"model_type": "mamba2"}, "state space"),
        ({"model_type": "new", "layer_types": ["full_attention", "linear_attention"]}, "linear_attention"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "has an encoder"),
        ({"model_type": "bert"}, "it is an encoder"),
        ({"model_type": "llava", "vision_config": {}}, "more than text"),
        ({"model_type": "bloom"}, "takes no positions"),
        ({"model_type": "falcon", "alibi": True}, "takes no positions"),
        (LLAMA | {"quantization_config": {"bits": 4}}, "quantized"),
    ],
)
def test_what_cannot_be_trained_is_told_from_the_config_alone(config: dict[str, Any], told: str) -> None:
    """Else an engine has to start to say so, or computes other numbers than the model's own."""
    (unfit,) = unsupported(config)
    assert told in unfit.what
    assert unfit.hint


@pytest.mark.parametrize(
    "config",
    [
        LLAMA,
        {"model_type": "gemma2", "final_logit_softcapping": None, "attn_logit_softcapping": None},
        {"model_type": "granite", "logits_scaling": 8.0},
        {"model_type": "granitemoehybrid", "layer_types": ["attention", "attention"]},
        {"model_type": "cohere"},
        {"model_type": "gemma3_text", "layer_types": ["sliding_attention", "full_attention"]},
        {"model_type": "bert", "is_decoder": True},
        {"model_type": "falcon", "alibi": False},
        {},
    ],
)
def test_what_can_be_trained_is_not_refused(config: dict[str, Any]) -> None:
    assert list(unsupported(config)) == []


@pytest.mark.parametrize(
    ("more", "context"),
    [
        ({}, 2048),
        ({"rope_scaling": None}, 2048),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, 4096),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}}, 8192),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 128}}, 2048),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, 2048),
        ({"rope_scaling": {"rope_type": "longrope", "original_max_position_embeddings": 64}}, 64),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, 2048),
        ({"max_position_embeddings": None, "n_positions": 1024}, 1024),
        ({"max_position_embeddings": None}, None),
        ({"max_position_embeddings": "2048"}, None),
    ],
)
def test_a_context_is_as_long_as_the_positions_reach(more: dict[str, Any], context: int | None) -> None:
    """A prompt is refused by this number, so positions that scaling adds have to count."""
    assert context_of(LLAMA | more) == context


def test_a_rotation_that_depends_on_the_batch_has_a_limit() -> None:
    """Beyond it a short text's numbers change with the texts beside it."""
    long = {"rope_type": "longrope", "original_max_position_embeddings": 512}
    assert rotation_limit(LLAMA) is None
    assert rotation_limit(LLAMA | {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}) is None
    assert rotation_limit(LLAMA | {"rope_parameters": long}) == 512
    assert rotation_limit(LLAMA | {"rope_parameters": {"sliding_attention": {}, "full_attention": long}}) == 512
    older = {"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 1024}
    assert rotation_limit(LLAMA | older) == 1024


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        (LLAMA, 1.0),
        ({"model_type": "granite", "logits_scaling": 8.0}, 0.125),
        ({"model_type": "hyperclovax", "logits_scaling": 8.0}, 8.0),
        ({"model_type": "cohere", "logit_scale": 0.0625}, 0.0625),
        ({"model_type": "cohere", "logit_scale": None}, 1.0),
    ],
)
def test_logits_are_scaled_as_the_model_does_it(config: dict[str, Any], scale: float) -> None:
    """Left out, it would be another temperature than the model was trained at."""
    assert scale_of_logits(config) == scale


def test_all_end_tokens_count_wherever_they_are_named() -> None:
    """Llama 3 and Gemma name the end of a turn in the generation config only, as one of a list."""
    assert end_tokens({"eos_token_id": 1}, {"eos_token_id": [1, 106]}, {"eos_token_id": None}, {}) == (1, 106)
    assert end_tokens({"eos_token_id": "2"}, {"eos_token_id": [True, 3.0]}) == ()


def test_rules_of_sampling_that_no_key_of_a_spec_stands_for_are_told() -> None:
    """What is sampled by other rules than it is trained by is another policy. The usual keys are no such rules."""
    published: dict[str, object] = {
        "temperature": 0.6,
        "top_p": 0.9,
        "do_sample": True,
        "suppress_tokens": None,
        "bad_words_ids": [],
    }
    assert list(rules_of_sampling(published)) == []
    (unfit,) = rules_of_sampling(published | {"suppress_tokens": [5]})
    assert "suppress_tokens" in unfit.what
