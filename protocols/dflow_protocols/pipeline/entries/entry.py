"""An entry of a data set: a row of whatever format, with its prompt and answer found and checked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Self

import msgpack

from ..grammar.text import half_character, is_text
from .conversation import ASSISTANT, USER, Message, question_of, read_message, read_messages, split_answer
from .problem import EntryError

KEYS_TOLD = 8

Row = dict[str, Any]
"""What a file says of one entry: only what JSON can say."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Under which keys a data set's rows hold what: a prompt or a conversation, and the answer, which a conversation
    may have in itself. A key with dots in it leads into objects, unless a row has it as it is written."""

    prompt: str | None
    answer: str | None
    messages: str | None = None
    rejected: str | None = None

    @classmethod
    def of(cls, source: Mapping[str, Any]) -> Self:
        """As a spec's `data` section says."""
        return cls(source["prompt"], source["answer"], source.get("messages"), source.get("rejected"))


def make_entry(row: Row | EntryError, keys: Keys) -> Row:
    """The row, with `question` and `answer` as texts whatever their keys are called there, and `rejected` if a worse
    answer is named.

    A number is an answer as JSON writes it. Raises EntryError, also the one that came in
    place of a row.
    """
    if isinstance(row, EntryError):
        raise row
    asked, said = _asked(row, keys)
    question = question_of(asked)
    if keys.rejected is None:
        answer = said if keys.answer is None else _text(row, "answer", keys.answer)
        return {**row, "question": question, "answer": answer}
    better, worse = str(keys.answer or keys.messages), keys.rejected
    answer, rejected = _one_of_two(row, "answer", better, asked), _one_of_two(row, "rejected", worse, asked)
    if answer == rejected:
        raise EntryError(f"`{better}` and `{worse}` are the same answer", "correct one of them, or take the line out")
    return {**row, "question": question, "answer": answer, "rejected": rejected}


def _asked(row: Row, keys: Keys) -> tuple[list[Message], str]:
    """What a model is asked, and the answer that a conversation has in itself."""
    if keys.messages is not None:
        return split_answer(read_messages(_find(row, "messages", keys.messages), keys.messages))
    prompt = _text(row, "prompt", str(keys.prompt))
    if not prompt.strip():
        raise EntryError(f"`{keys.prompt}` is empty", "give every entry a prompt, or take the line out")
    return [{"role": USER, "content": prompt}], ""


def _one_of_two(row: Row, role: str, key: str, asked: list[Message]) -> str:
    """An answer of a pair: a text, or the last turn of a conversation, behind what is `asked` or alone."""
    found = _find(row, role, key)
    if not isinstance(found, list):
        return _text(row, role, key)
    turns = [read_message(turn, f"{key}[{at}]") for at, turn in enumerate(found)]
    if not turns or turns[-1]["role"] != ASSISTANT:
        what = f"`{key}` ends in no turn of the assistant"
        raise EntryError(what, f"give it the answer, name the one that has it, `{role}: KEY`, or take the line out")
    *before, last = turns
    if before and [_spoken(turn) for turn in before] != [_spoken(turn) for turn in asked]:
        hint = "a pair's answers are to one prompt: correct it, or take the line out"
        raise EntryError(f"`{key}` answers something else than what is asked", hint)
    return str(last["content"])


def _spoken(turn: Message) -> tuple[str, str]:
    return turn["role"], turn["content"]


def is_held_out(question: str, share: float) -> bool:
    """Whether the hash of a question's text puts it into the held-out `share`, under any seed."""
    drawn = blake2b(msgpack.packb(["question", question], use_bin_type=True), digest_size=8).digest()
    return int.from_bytes(drawn, "little") < share * 2.0**64


def hashed_text(question: str, by: str) -> str:
    """What of a question is hashed. `by`: the key of `held_out`."""
    return question.lower() if by == "question_lower" else question


def _find(row: Row, role: str, key: str) -> Any:
    """What a row has under a key; under `reward_model.ground_truth` what its object `reward_model` has there."""
    if key in row:
        return row[key]
    found: Any = row
    for part in key.split("."):
        if not isinstance(found, dict) or part not in found:
            keys = ", ".join(f"`{name}`" for name in list(row)[:KEYS_TOLD]) or "none"
            more = f" and {len(row) - KEYS_TOLD} more" if len(row) > KEYS_TOLD else ""
            raise EntryError(f"no key `{key}`", f"keys there: {keys}{more}; name the one that holds it: `{role}: KEY`")
        found = found[part]
    return found


def _text(row: Row, role: str, key: str) -> str:
    found = _find(row, role, key)
    match found:
        case str() as text if is_text(text):
            return text
        case str() as text:
            raise EntryError(
                f"`{key}` has {half_character(text)}, which is half a character", "correct it, or take the line out"
            )
        case bool() | None | list() | dict():
            kind = {bool: "true or false", type(None): "null", list: "a list", dict: "an object"}[type(found)]
            hint = f"the {role} has to be a text or a number"
            if role == "prompt" and isinstance(found, list):
                hint += f"; a conversation is named by `messages: {key}`"
            raise EntryError(f"`{key}` is {kind}, not a text", hint)
        case float() as number if not math.isfinite(number):
            raise EntryError(f"`{key}` is {number}, which is no number", f"the {role} has to be a text or a number")
        case number:
            return json.dumps(number)
