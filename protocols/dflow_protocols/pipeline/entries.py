"""A line of a JSONL data set as an entry: read by engines to work with it, and by clients to tell mistakes early."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

ONE_OBJECT = 'write one JSON object a line, such as {"prompt": "1 + 1", "answer": "2"}'


class EntryError(ValueError):
    """A line that is no entry. `what` names the key at fault; `hint` is the remedy."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what, self.hint = what, hint


def read_entry(line: str, prompt_key: str, answer_key: str) -> dict[str, Any]:
    """The line's object, with `question` and `answer` as texts whatever their keys are called there.

    A number is an answer as JSON writes it. Raises EntryError.
    """
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise EntryError(f"not JSON: {error.msg} (column {error.pos + 1})", ONE_OBJECT) from error
    except RecursionError as error:
        raise EntryError("not JSON that can be read: nested too deep", ONE_OBJECT) from error
    if not isinstance(found, dict):
        raise EntryError("not a JSON object", ONE_OBJECT)
    prompt = _text(found, "prompt", prompt_key)
    if not prompt:
        raise EntryError(f"`{prompt_key}` is empty", "give every entry a prompt, or take the line out")
    return {**found, "question": prompt, "answer": _text(found, "answer", answer_key)}


def numbered_lines(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Lines that say something, with their numbers as editors count them."""
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip())


def _text(entry: dict[str, Any], role: str, key: str) -> str:
    if key not in entry:
        keys = ", ".join(f"`{name}`" for name in list(entry)[:8]) or "none"
        raise EntryError(f"no key `{key}`", f"keys there: {keys}; name the one that holds it: `{role}: KEY`")
    match entry[key]:
        case str() as text:
            return text
        case bool() | None | list() | dict():
            kind = {bool: "true or false", type(None): "null", list: "a list", dict: "an object"}[type(entry[key])]
            raise EntryError(f"`{key}` is {kind}, not a text", f"the {role} has to be a text or a number")
        case number:
            return json.dumps(number)
