"""Numbers of a `config.json` from which no model can be built, by the arithmetic of attention. It opens no file."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeGuard

from .models import Facts, Unfit

SIZES = (
    "vocab_size",
    "hidden_size",
    "n_embd",
    "num_attention_heads",
    "n_head",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "n_positions",
)
HEADS = (("num_attention_heads", "n_head"), ("hidden_size", "n_embd"))
LAYERS = ("num_hidden_layers", "n_layer")
TOKENS = ("eos_token_id", "bos_token_id", "pad_token_id")
FRACTIONS = ("initializer_range", "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon")
DTYPES = ("float16", "bfloat16", "float32", "float64", "auto")

DIVIDED_EVENLY = frozenset(("gpt2", "gpt_neo", "gpt_neox", "gptj", "gpt_bigcode", "llama", "opt"))
"""Model types whose width is dealt to the heads; others may have a `head_dim` of their own."""

PADDED_ROW = frozenset(("gemma", "llama", "mistral", "mixtral", "olmo2", "phi3", "qwen2", "qwen3", "qwen3_moe"))
"""Model types whose embedding keeps a row for `pad_token_id`, which has to be there."""


def misshapen(config: Facts) -> Iterator[Unfit]:
    """What no model can be built from; nothing where the numbers fit together. Values of a form that is not known
    here, such as a list with a number for each layer, are let pass."""
    yield from _wrong_kinds(config)
    yield from _heads(config)
    rows, pad = config.get("vocab_size"), config.get("pad_token_id")
    if config.get("model_type") in PADDED_ROW and _is_size(rows) and _is_whole(pad) and not -rows <= pad < rows:
        yield Unfit(f"`pad_token_id` {pad} is beyond the vocabulary of {rows} (`vocab_size`)", "name a token of it")


def head_size(config: Facts) -> int | None:
    """Values of an attention head; None where the config does not tell, or not as one number. A type that has a default
    of its own for `head_dim` has to have it filled in."""
    told = config.get("head_dim")
    heads, width = (config.get(key, config.get(old)) for key, old in HEADS)
    if _is_size(told):
        return told
    return width // heads if told is None and _is_size(heads) and _is_size(width) else None


def no_such_heads(config: Facts, sizes: Collection[int], engine: str, rest: str) -> Iterator[Unfit]:
    """Heads that an engine has no kernel for on a CPU; `sizes`: those that it has, none: any; `rest`: who does any."""
    found = head_size(config)
    if sizes and found is not None and found not in sizes:
        yield Unfit(
            f"attention heads of {found} values, and `{engine}` on a CPU has those of {', '.join(map(str, sizes))}",
            f"write `engine: {rest}` in the stages that sample, or take a model with other heads",
        )


def _wrong_kinds(config: Facts) -> Iterator[Unfit]:
    for key in (*SIZES, *LAYERS):
        value, least = config.get(key), 0 if key in LAYERS else 1
        if value is not None and not isinstance(value, list | Mapping) and not (_is_whole(value) and value >= least):
            yield Unfit(f"`{key}` is {_shown(value)}", f"it has to be a whole number at least {least}")
    for key in TOKENS:
        value = config.get(key)
        if value is not None and not isinstance(value, list) and not _is_whole(value):
            yield Unfit(f"`{key}` is {_shown(value)}", "it has to be the number of a token, not its text")
    for key in FRACTIONS:
        value = config.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            yield Unfit(f"`{key}` is {_shown(value)}", "it has to be a number, such as 1e-5")
    for key in ("dtype", "torch_dtype"):
        value = config.get(key)
        if isinstance(value, str) and value.removeprefix("torch.") not in DTYPES and "float8" not in value:
            yield Unfit(f"`{key}` is {_shown(value)}", f"known ones: {', '.join(DTYPES)}")


def _heads(config: Facts) -> Iterator[Unfit]:
    heads, width = (config.get(key, config.get(old)) for key, old in HEADS)
    shared = config.get("num_key_value_heads")
    if not _is_size(heads):
        return
    if _is_size(width) and config.get("model_type") in DIVIDED_EVENLY and width % heads:
        names = ("n_embd", "n_head") if "n_head" in config else ("hidden_size", "num_attention_heads")
        what = f"`{names[0]}` {width} cannot be dealt to {heads} heads (`{names[1]}`)"
        yield Unfit(what, f"take a multiple of {heads}, such as {-(-width // heads) * heads}")
    if _is_size(shared) and "num_attention_heads" in config and heads % shared:
        what = f"{heads} heads (`num_attention_heads`) cannot share {shared} keys and values (`num_key_value_heads`)"
        yield Unfit(what, f"take a number that divides {heads}")


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_size(value: Any) -> TypeGuard[int]:
    return _is_whole(value) and value > 0


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"the text `{value[:40]}`"
    return str(value).lower() if isinstance(value, bool) else f"{value}"[:40]
