"""Conversations: messages with a role and a content each, and what of them is put to a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from ..grammar.text import half_character, is_text
from .problem import EntryError

Message: TypeAlias = dict[str, Any]
"""`role` and `content`, texts; whatever else is in it is for the chat template to read."""

Render: TypeAlias = Callable[[Sequence[Message], bool], str]
"""A chat template at work: a conversation as text, and behind it the beginning of an answer if one is asked for."""

Span: TypeAlias = tuple[int, int]
"""[start, end) of a text."""

MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
"""What a chat template has that marks by itself what the assistant says."""

ASSISTANT, SYSTEM, USER = "assistant", "system", "user"
AS_MESSAGES = 'a conversation is a list such as [{"role": "user", "content": "1 + 1"}]'


def read_messages(value: Any, key: str) -> list[Message]:
    """The conversation that stands under `key` of a row. Keys of a message that hold null are left out, as tables have
    them where other messages have more to say. Raises EntryError."""
    if not isinstance(value, list) or not value:
        raise EntryError(f"`{key}` is no list of messages", AS_MESSAGES)
    messages = [read_message(item, f"{key}[{index}]") for index, item in enumerate(value)]
    if not any(message["role"] == USER for message in messages):
        raise EntryError(f"`{key}` has no message of the role `{USER}`", "give it a question, or take the line out")
    return messages


def read_message(value: Any, place: str) -> Message:
    """One message; `place`: how it is named in errors. Raises EntryError."""
    if not isinstance(value, Mapping):
        raise EntryError(f"`{place}` is no message", AS_MESSAGES)
    for key in ("role", "content"):
        text = value.get(key)
        if key not in value:
            keys = ", ".join(f"`{name}`" for name in value) or "none"
            raise EntryError(f"`{place}` has no `{key}`", f"{AS_MESSAGES}; keys there: {keys}")
        if not isinstance(text, str):
            raise EntryError(f"`{place}.{key}` is no text", AS_MESSAGES)
        if not is_text(text):
            what = f"`{place}.{key}` has {half_character(text)}, which is half a character"
            raise EntryError(what, "correct it, or take the line out")
    if not value["content"].strip() and value["role"] == USER:
        raise EntryError(f"`{place}.content` is empty", "say what is asked, or take the line out")
    return {key: inner for key, inner in value.items() if inner is not None}


def split_answer(messages: list[Message]) -> tuple[list[Message], str]:
    """What a model is asked, and the answer that stands there: a last turn of the assistant, else nothing."""
    if messages[-1]["role"] == ASSISTANT:
        return messages[:-1], str(messages[-1]["content"])
    return messages, ""


def question_of(messages: list[Message]) -> str:
    """What users say in it: the text that people read and that is hashed, as that of a prompt is."""
    return "\n\n".join(message["content"] for message in messages if message["role"] == USER)


def put_to_model(entry: Mapping[str, Any], key: str | None, template: str | None, system: str | None) -> list[Message]:
    """The conversation that a model is to go on with. `key`: of the entry's conversation; None: it has a prompt, which
    is put into `template`. `system`: said first, unless the conversation has its own."""
    if key is None:
        said: list[Message] = [
            {"role": USER, "content": (template or "{prompt}").replace("{prompt}", entry["question"])}
        ]
    else:
        said, _ = split_answer(read_messages(entry[key], key))
    return with_system(said, system)


def with_system(messages: list[Message], system: str | None) -> list[Message]:
    if system is None or messages[0]["role"] == SYSTEM:
        return messages
    return [{"role": SYSTEM, "content": system}, *messages]


def answers_in(messages: Sequence[Message]) -> list[int]:
    """Which messages are the assistant's."""
    return [at for at, message in enumerate(messages) if message["role"] == ASSISTANT]


def assistant_spans(messages: Sequence[Message], render: Render) -> tuple[str, list[Span]]:
    """The conversation as text, and what of it the assistant says: of each of its turns what comes behind the
    template's beginning of an answer. Raises EntryError where the text up to a turn is not the beginning of the whole
    one, such as with a template that leaves out the thinking of earlier turns."""
    whole, spans = render(messages, False), []
    for at in answers_in(messages):
        before, after = render(messages[:at], True), render(messages[: at + 1], False)
        if not (whole.startswith(after) and after.startswith(before)):
            what = f"the chat template words turn {at + 1} of {len(messages)} otherwise than when it was the last one"
            hint = (
                "what the assistant says cannot be told from the rest then: mark it in the template by "
                "`{% generation %}`, or let each conversation end in its only turn of the assistant"
            )
            raise EntryError(what, hint)
        spans.append((len(before), len(after)))
    return whole, spans


def answer_span(asked: Sequence[Message], answer: str, render: Render) -> tuple[str, Span]:
    """The conversation with an answer behind it as text, and where in that the answer is. Raises EntryError where the
    template writes what is asked otherwise once it is answered."""
    before, whole = render(asked, True), render([*asked, {"role": ASSISTANT, "content": answer}], False)
    if not whole.startswith(before):
        what = "the chat template words what is asked otherwise once it is answered"
        raise EntryError(what, "take one that does not, or give the data `prompt` and `answer` as texts")
    return whole, (len(before), len(whole))
