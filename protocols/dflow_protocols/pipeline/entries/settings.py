"""What ties the keys of a data set in a spec together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..grammar.layout import origin_of
from ..grammar.problem import Problem, suggest
from ..grammar.shape import Reader, at
from .mixing import parts_of_block, sets_in

OF_CHAT = ("messages", "system", "template_args")  # keys that only a chat template can follow

DROP, CUT_LEFT = "drop", "cut_left"
"""Of `long_prompts`, beside the default."""

ITS_OWN = (
    "add_generation_prompt",
    "chat_template",
    "continue_final_message",
    "conversation",
    "documents",
    "max_length",
    "messages",
    "padding",
    "return_assistant_tokens_mask",
    "return_dict",
    "return_tensors",
    "tokenize",
    "tokenizer_kwargs",
    "tools",
    "truncation",
)
"""What engines tell a chat template, or the library that renders it, by themselves."""


def settle_sources(reader: Reader, written: Any, sources: Mapping[str, Any]) -> None:
    """Check the data sets' keys against each other, and take out the defaults that do not stand beside `messages`.
    `written`: the spec's `data` as it was written."""
    for name, source in sources.items():
        own = written.get(name) if isinstance(written, Mapping) else None
        if source is None or not isinstance(own, Mapping):
            continue
        place = at("data", name)
        _check_mix(reader, name, sources, place)
        if source.get("messages") is not None:
            _settle_messages(reader, own, source, place)
        for key in OF_CHAT:
            if source.get("chat") is False and source.get(key):
                what = f"`{key}` is for the chat template, and `chat` is false"
                reader.note(at(place, key), what, f"leave `chat` out, or `{key}`")
        if "long_prompts" in source and source.get("max_prompt_tokens") is None:
            what = f"`long_prompts` is `{source['long_prompts']}`, and no prompt is too long"
            reader.note(at(place, "long_prompts"), what, "say `max_prompt_tokens`, or leave `long_prompts` out")
        for key in source.get("template_args") or {}:
            if key in ITS_OWN:
                what = f"`{key}` is told to every chat template"
                reader.note(at(at(place, "template_args"), key), what, "leave it out")


def _check_mix(reader: Reader, name: str, sources: Mapping[str, Any], place: str) -> None:
    mixed = (sources[name].get("mix")) or {}
    path = at(place, "mix")
    if "mix" in sources[name] and not mixed:
        reader.note(path, "`mix` names no data set", "such as `mix: {sums: 2, words: 1}`")
    for other in mixed:
        if other not in sources:
            reader.note(at(path, other), f"there is no data `{other}`", suggest(other, set(sources) - {name}, "data"))
        elif (sources[other] or {}).get("mix") is not None:
            reader.note(at(path, other), f"`{other}` is a mixture itself", "name the data sets that it mixes")
    weights = list(mixed.values())
    if mixed and None not in weights:
        for other, count in zip(mixed, parts_of_block(weights), strict=True):
            if not count:
                what = f"`{other}` has less than a thousandth of the weights, and would never be drawn"
                reader.note(at(path, other), what, "raise its weight, or leave it out")


def _settle_messages(reader: Reader, own: Mapping[str, Any], source: dict[str, Any], place: str) -> None:
    """A conversation has its prompt, and mostly its answer, in itself."""
    for key in ("prompt", "template"):
        if own.get(key) is not None:
            what = f"`{key}` stands beside `messages`, which holds all that is asked"
            reader.note(at(place, key), what, f"leave `{key}` out, or `messages`")
    if source["messages"] in ("question", "answer"):
        what = f"a column of conversations cannot be called `{source['messages']}` here"
        reader.note(at(place, "messages"), what, "rename it: entries have texts of that name")
    source["prompt"] = None
    if own.get("answer") is None:
        source["answer"] = None


def check_dropped(spec: Mapping[str, Any], places: Sequence[str]) -> Iterator[Problem]:
    """Which prompts are left out of a data set has to be the same for all stages that read it. `spec`: all else of it
    is in order; `places`: of its stages, as they were written."""
    for name, source in spec["data"].items():
        if source.get("long_prompts") != DROP:
            continue
        first: tuple[str, str] | None = None  # stage, and its tokenizer
        for stage, place in zip(spec["stages"], places, strict=True):
            if stage["model"] is None or name not in sets_in(spec["data"], data_of(stage["config"])):
                continue
            tokenizer = _tokenizer(spec["models"][origin_of(spec["models"], stage["model"])])
            first = first or (stage["id"], tokenizer)
            if tokenizer != first[1]:
                what = f"`{stage['id']}` and `{first[0]}` read `{name}`, which drops prompts, by different tokenizers"
                hint = "describe it twice under `data`, once for each of them"
                yield Problem(f"{place}.config.data", what, hint)


def data_of(config: Mapping[str, Any]) -> str:
    """The data set that a stage reads, or whose held-out part it does; empty: none."""
    return str(config.get("data", "")).partition(".")[0]


def _tokenizer(model: Mapping[str, Any]) -> str:
    return str(model["path"] if "path" in model else model["init"]["tokenizer"])
