"""A conversation as an entry: what of it a model is asked, what the answer is, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from dflow_protocols.pipeline.entries.conversation import Message, assistant_spans, put_to_model
from dflow_protocols.pipeline.entries.entry import Keys, Row, make_entry
from dflow_protocols.pipeline.entries.problem import EntryError

KEYS = Keys(None, None, "chat")


def turns(*said: str) -> list[dict[str, Any]]:
    """`role: content` each."""
    return [dict(zip(("role", "content"), each.split(": ", 1), strict=True)) for each in said]


def entry(*said: str, keys: Keys = KEYS, **more: Any) -> Row:
    return make_entry({"chat": turns(*said), **more}, keys)


def test_a_last_turn_of_the_assistant_is_the_answer_and_not_asked() -> None:
    """What stands before it is put to the model, whoever said it."""
    whole = entry("system: be brief", "user: 1 + 1", "assistant: 2", "user: and 1", "assistant: 3")
    assert (whole["question"], whole["answer"]) == ("1 + 1\n\nand 1", "3")
    asked = put_to_model(whole, "chat", None, None)
    assert asked == turns("system: be brief", "user: 1 + 1", "assistant: 2", "user: and 1")


def test_a_conversation_that_ends_in_a_question_is_asked_whole() -> None:
    """Its answer may stand under a key; a reward may need none."""
    assert entry("user: 1 + 1")["answer"] == ""
    named = entry("user: 1 + 1", "assistant: two", keys=Keys(None, "result", "chat"), result=2)
    assert (named["answer"], put_to_model(named, "chat", None, None)) == ("2", turns("user: 1 + 1"))


def test_one_question_is_the_same_text_as_a_prompt_and_as_a_conversation() -> None:
    """It is what is hashed: one data set in two forms is split alike, and no question is on both sides."""
    assert entry("system: x", "user: 1 + 1", "assistant: 2")["question"] == "1 + 1"


def test_a_systems_message_comes_first_unless_the_conversation_has_its_own() -> None:
    said = put_to_model(entry("user: a"), "chat", None, "be brief")
    assert said == turns("system: be brief", "user: a")
    assert put_to_model(entry("system: x", "user: a"), "chat", None, "be brief") == turns("system: x", "user: a")
    assert put_to_model({"question": "a"}, None, "Say {prompt}.", "be brief") == turns(
        "system: be brief", "user: Say a."
    )


def test_what_else_a_message_holds_goes_to_the_template_and_null_does_not() -> None:
    """Tables have every key in every message."""
    messages = [{"role": "user", "content": "a", "name": "ann", "tool_calls": None}]
    made = make_entry({"chat": messages}, KEYS)
    assert put_to_model(made, "chat", None, None) == [{"role": "user", "content": "a", "name": "ann"}]


@pytest.mark.parametrize(
    ("value", "what", "hint"),
    [
        ("hello", "`chat` is no list of messages", '[{"role": "user"'),
        ([], "`chat` is no list of messages", '[{"role": "user"'),
        (["a"], r"`chat\[0\]` is no message", '[{"role": "user"'),
        ([{"from": "human", "value": "a"}], r"`chat\[0\]` has no `role`", "keys there: `from`, `value`"),
        ([*turns("user: a"), {"role": "assistant", "content": None}], r"`chat\[1\]\.content` is no text", ""),
        (turns("user: \ud83d"), r"`chat\[0\]\.content` has .ud83d, which is half a character", "correct it"),
        (turns("user:  "), r"`chat\[0\]\.content` is empty", "take the line out"),
        (turns("system: a", "assistant: b"), "`chat` has no message of the role `user`", "give it a question"),
    ],
)
def test_what_is_no_conversation_is_named_by_its_message(value: Any, what: str, hint: str) -> None:
    """The row's place is put before it by who reads the file."""
    with pytest.raises(EntryError, match=what) as caught:
        make_entry({"chat": value}, KEYS)
    assert hint in caught.value.hint


def test_a_missing_column_is_told_with_those_that_are_there() -> None:
    with pytest.raises(EntryError, match="no key `chat`") as caught:
        make_entry({"messages": []}, KEYS)
    assert caught.value.hint == "keys there: `messages`; name the one that holds it: `messages: KEY`"


def plain(messages: Sequence[Message], asks: bool) -> str:
    """A template that words each turn alike, whatever comes behind it."""
    return "".join(f"<{each['role']}>{each['content']}." for each in messages) + "<assistant>" * asks


def test_what_the_assistant_says_is_found_in_the_text() -> None:
    """All of its turns, and behind what the template begins an answer with: that is given, not said."""
    said = turns("system: s", "user: a", "assistant: b", "user: c", "assistant: d")
    text, spans = assistant_spans(said, plain)
    assert text == "<system>s.<user>a.<assistant>b.<user>c.<assistant>d."
    assert [text[start:end] for start, end in spans] == ["b.", "d."]


def test_a_template_that_words_earlier_turns_otherwise_is_refused_with_the_turn() -> None:
    """Such as one that leaves out what was thought; a conversation with one answer is in order."""

    def forgets(messages: Sequence[Message], asks: bool) -> str:
        last = len(messages) - 1
        kept = [{**each, "content": each["content"] if at == last else "..."} for at, each in enumerate(messages)]
        answers = [each if each["role"] == "assistant" else messages[at] for at, each in enumerate(kept)]
        return plain(answers, asks)

    assert assistant_spans(turns("user: a", "assistant: b"), forgets)[1] == [(19, 21)]
    with pytest.raises(EntryError, match="words turn 2 of 4 otherwise than when it was the last one") as caught:
        assistant_spans(turns("user: a", "assistant: b", "user: c", "assistant: d"), forgets)
    assert "{% generation %}" in caught.value.hint
