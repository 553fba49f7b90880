"""What ties the keys of a data set in a spec together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..grammar.shape import Reader, at

OF_CHAT = ("messages", "system", "template_args")  # keys that only a chat template can follow

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
        if source.get("messages") is not None:
            _settle_messages(reader, own, source, place)
        for key in OF_CHAT:
            if source.get("chat") is False and source.get(key):
                what = f"`{key}` is for the chat template, and `chat` is false"
                reader.note(at(place, key), what, f"leave `chat` out, or `{key}`")
        for key in source.get("template_args") or {}:
            if key in ITS_OWN:
                what = f"`{key}` is told to every chat template"
                reader.note(at(at(place, "template_args"), key), what, "leave it out")


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
