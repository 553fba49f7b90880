"""What a model's files say of it: whether it can be trained here, how long its texts may be, what ends them.

The one place for what is not supported, read by clients from `config.json` before a run is submitted, and by engines
from the configuration that transformers made of it (defaults filled in). It opens no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

Facts = Mapping[str, Any]
"""A JSON object of a model's folder."""

SOFT_CAPS = ("final_logit_softcapping", "attn_logit_softcapping", "logits_soft_cap")
"""What some models do between their head and the loss, or inside attention, and engines would leave out."""

CAPPED_UNLESS_TOLD = {
    "beam": "final_logit_softcapping",
    "gemma2": "final_logit_softcapping",
    "gemma3n": "final_logit_softcapping",
    "gemma3n_text": "final_logit_softcapping",
    "nanochat": "final_logit_softcapping",
    "recurrent_gemma": "logits_soft_cap",
    "vaultgemma": "final_logit_softcapping",
}
"""Model types whose default is not neutral: a config that does not name the key has it all the same."""

ATTENTION = ("full_attention", "sliding_attention", "chunked_attention", "attention")
"""Kinds of layers (`layer_types`) that look at tokens; what any other kind keeps of a text is no key-value cache."""

RECURRENT = frozenset(
    [
        "bamba",
        "falcon_h1",
        "falcon_mamba",
        "granitemoehybrid",
        "jamba",
        "kimi_linear",
        "lfm2",
        "lfm2_moe",
        "lfm3",
        "mamba",
        "mamba2",
        "minimax",
        "nemotron_h",
        "olmo_hybrid",
        "qwen3_5",
        "qwen3_5_moe",
        "qwen3_5_moe_text",
        "qwen3_5_text",
        "qwen3_next",
        "recurrent_gemma",
        "rwkv",
        "xlstm",
        "zamba",
        "zamba2",
    ]
)
"""Model types with linear attention, state spaces or recurrence, in whole or in part."""

ENCODERS = frozenset(
    [
        "bert",
        "big_bird",
        "camembert",
        "data2vec-text",
        "electra",
        "ernie",
        "megatron-bert",
        "rembert",
        "roberta",
        "roberta-prelayernorm",
        "roc_bert",
        "roformer",
        "xlm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    ]
)
"""Model types that look at what comes after a token, unless their config says `is_decoder`."""

WITHOUT_POSITIONS = frozenset(("bloom", "cpmant", "mpt", "xlnet"))
"""Model types whose forward pass takes no positions, and counts them from a mask of one row a text instead."""

SINKS = frozenset(("flint", "gpt_oss", "granite_swa", "granitemoe_swa", "mimo_v2_flash"))
"""Model types whose attention has learned sinks, which the kernels that engines use leave out."""

OTHER_SENSES = ("vision_config", "audio_config", "speech_config")

SAMPLING_RULES = (
    "suppress_tokens",
    "begin_suppress_tokens",
    "bad_words_ids",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "forced_decoder_ids",
    "sequence_bias",
    "constraints",
)
"""Keys of `generation_config.json` by which transformers would sample otherwise than the model's probabilities say,
in ways that no key of a spec stands for. (Temperature, top-p and the like are the spec's to say.)"""

CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_target_positions", "n_ctx")


TEMPLATE_DAY = "2024-07-26"
"""The day that a chat template is told when it asks for today's (`strftime_now`), as several published ones do: what a
prompt says is a function of the spec. It is the day that the templates of Llama 3 fall back on."""


@dataclass(frozen=True, slots=True)
class Unfit:
    """A reason why a model cannot be worked with, and the remedy."""

    what: str
    hint: str


def unsupported(config: Facts) -> Iterator[Unfit]:
    """Why a model with this `config.json` cannot be trained or sampled from here; nothing where it can."""
    kind = config.get("model_type")
    named = f"a model of type `{kind}`"
    another = "take a decoder-only language model with attention in every layer"
    if config.get("is_encoder_decoder") is True:
        yield Unfit(f"{named} has an encoder: not supported", another)
    if kind in ENCODERS and config.get("is_decoder") is not True:
        yield Unfit(f"{named} sees what comes after a token: it is an encoder", another)
    if config.get("add_cross_attention") is True:
        yield Unfit("`add_cross_attention`: a model that looks at a second text is not supported", another)
    senses = [key for key in OTHER_SENSES if isinstance(config.get(key), Mapping)]
    if senses:
        yield Unfit(f"{named} takes more than text (`{senses[0]}`): not supported", "take its text-only variant")
    others = [item for item in _texts(config.get("layer_types")) if item not in ATTENTION]
    if others or (kind in RECURRENT and not config.get("layer_types")):  # some have variants of attention alone
        has = f"layers of kind `{others[0]}`" if others else "linear attention, a state space or recurrence"
        yield Unfit(f"{named} has {has}: not supported", another)
    if isinstance(config.get("quantization_config"), Mapping):
        what = "`quantization_config`: quantized weights cannot be trained"
        yield Unfit(what, "take the folder of the same model in bfloat16 or float32")
    if kind in WITHOUT_POSITIONS or config.get("alibi") is True:
        yield Unfit(f"{named} takes no positions, such as packed texts need: not supported", "take one that does")
    if kind in SINKS:
        yield Unfit(f"{named} has attention sinks: not supported", another)
    yield from _capped(config)


def _capped(config: Facts) -> Iterator[Unfit]:
    kind = config.get("model_type")
    for key in SOFT_CAPS:
        is_neutral = config[key] in (None, 0, 1) if key in config else CAPPED_UNLESS_TOLD.get(str(kind)) != key
        if not is_neutral:
            value = f"is {config[key]}" if key in config else "has a value by default"
            yield Unfit(
                f"a model of type `{kind}` whose `{key}` {value} is not supported",
                "take a model whose scores are not capped",
            )


def rules_of_sampling(generation: Facts) -> Iterator[Unfit]:
    """What a `generation_config.json` asks of a sampler and this one does not do."""
    for key in SAMPLING_RULES:
        if generation.get(key) not in (None, [], {}):
            yield Unfit(
                f"`{key}` is not supported: tokens are sampled by the model's probabilities alone",
                f"take `{key}` out of the file",
            )


def context_of(config: Facts) -> int | None:
    """Tokens that a text may have, prompt and completion together; None where the config does not bound it.

    Rotary positions stretched by `rope_scaling` (or `rope_parameters`) reach as far as that says, and no further than
    one text's length does not change another's numbers.
    """
    counts = [count for key in CONTEXT if _is_count(count := config.get(key))]
    if not counts:
        return None
    found = counts[0]
    for key in ("rope_scaling", "rope_parameters"):
        scaling = config.get(key)
        if isinstance(scaling, Mapping):
            found = max(found, _stretched(scaling, found))
    return min(found, rotation_limit(config) or found)


def _stretched(scaling: Facts, positions: int) -> int:
    """The positions that rotary scaling was made for: `yarn` and its like name those before it and a factor."""
    factor, before = scaling.get("factor"), scaling.get("original_max_position_embeddings")
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind in (None, "default") or not isinstance(factor, int | float) or factor < 1:
        return positions
    if _is_count(before):
        return int(factor * before)
    return int(factor * positions) if kind in ("linear", "dynamic", "yarn") else positions


def scale_of_logits(config: Facts) -> float:
    """What a model multiplies its logits by, after the head. `config` with its defaults filled in."""
    scaling, factor = config.get("logits_scaling"), config.get("logit_scale")
    if scaling:
        return float(scaling) if config.get("model_type") == "hyperclovax" else 1 / float(scaling)  # Granite divides
    return 1.0 if factor is None else float(factor)


def rotation_limit(config: Facts) -> int | None:
    """Tokens up to which a text's numbers do not depend on the length of the texts beside it; None: any.

    `dynamic` and `longrope` turn all tokens of a batch otherwise once one is past the length trained first.
    """
    limits: list[int] = []
    for key in ("rope_parameters", "rope_scaling"):
        ropes = config.get(key)
        if isinstance(ropes, Mapping):  # one, or one for each kind of layer
            limits += (_rotation_limit(rope, config) for rope in (ropes, *ropes.values()) if isinstance(rope, Mapping))
    return min((limit for limit in limits if limit), default=None)


def _rotation_limit(rope: Facts, config: Facts) -> int:
    if rope.get("rope_type", rope.get("type")) not in ("dynamic", "longrope"):
        return 0
    before = "original_max_position_embeddings"
    found = (rope.get(before), config.get(before), config.get("max_position_embeddings"))
    return next((count for count in found if _is_count(count)), 0)


def end_tokens(*files: Facts) -> tuple[int, ...]:
    """The tokens that `eos_token_id` names in any of these files, a number or a list of them; sorted."""
    found: set[int] = set()
    for facts in files:
        value = facts.get("eos_token_id")
        listed = value if isinstance(value, list | tuple) else [value]
        found |= {token for token in listed if isinstance(token, int) and not isinstance(token, bool)}
    return tuple(sorted(found))


def _texts(value: Any) -> Sequence[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list | tuple) else []


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 40
