"""A line of a JSONL data set as an entry: read by engines to work with it, and by clients to tell mistakes early."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any

import msgpack

from .text import half_character, is_text

ONE_OBJECT = 'write one JSON object a line, such as {"prompt": "1 + 1", "answer": "2"}'
FROM_LIST = "write one JSON object a line; a file that is one JSON list becomes that by: jq -c '.[]' OLD > NEW"
KEYS_TOLD = 8
ENCODING, ERRORS = "utf-8-sig", "surrogateescape"
"""How a data file is opened: what is no UTF-8 comes as half surrogates, which `read_entry` refuses with its line."""


class EntryError(ValueError):
    """A line that is no entry. `what` names the key at fault; `hint` is the remedy."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what, self.hint = what, hint


def numbered_lines(file: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Lines of a file that say something, with their numbers as editors count them. `file`: opened as ENCODING."""
    for number, line in enumerate(file, 1):
        if line.strip():
            yield number, line


def read_entry(line: str, prompt_key: str, answer_key: str) -> dict[str, Any]:
    """The line's object, with `question` and `answer` as texts whatever their keys are called there.

    A number is an answer as JSON writes it. Raises EntryError.
    """
    if not is_text(line):
        raise EntryError("not text in UTF-8", "save the file as UTF-8")
    remedy = FROM_LIST if line.lstrip().startswith("[") else ONE_OBJECT
    try:
        found = _DECODER.decode(line)
    except json.JSONDecodeError as error:
        raise EntryError(f"not JSON: {error.msg} (column {error.pos + 1})", remedy) from error
    except RecursionError as error:
        raise EntryError("not JSON that can be read: nested too deep", remedy) from error
    except EntryError:
        raise
    except ValueError as error:  # Python reads integers of so many digits only
        raise EntryError("not JSON that can be read: a number of thousands of digits", "write it as a text") from error
    if not isinstance(found, dict):
        raise EntryError("not a JSON object", remedy)
    prompt = _text(found, "prompt", prompt_key)
    if not prompt.strip():
        raise EntryError(f"`{prompt_key}` is empty", "give every entry a prompt, or take the line out")
    return {**found, "question": prompt, "answer": _text(found, "answer", answer_key)}


def is_held_out(question: str, share: float) -> bool:
    """Whether the hash of a question's text puts it into the held-out `share`, under any seed."""
    drawn = blake2b(msgpack.packb(["question", question], use_bin_type=True), digest_size=8).digest()
    return int.from_bytes(drawn, "little") < share * 2.0**64


def hashed_text(question: str, by: str) -> str:
    """What of a question is hashed. `by`: the key of `held_out`."""
    return question.lower() if by == "question_lower" else question


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise EntryError(f"`{twice}` is written twice", "keep one of them")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object)  # one for all lines: making it takes longer than a line


def _text(entry: dict[str, Any], role: str, key: str) -> str:
    if key not in entry:
        keys = ", ".join(f"`{name}`" for name in list(entry)[:KEYS_TOLD]) or "none"
        more = f" and {len(entry) - KEYS_TOLD} more" if len(entry) > KEYS_TOLD else ""
        raise EntryError(f"no key `{key}`", f"keys there: {keys}{more}; name the one that holds it: `{role}: KEY`")
    match entry[key]:
        case str() as text if is_text(text):
            return text
        case str() as text:
            raise EntryError(
                f"`{key}` has {half_character(text)}, which is half a character", "correct it, or take the line out"
            )
        case bool() | None | list() | dict():
            kind = {bool: "true or false", type(None): "null", list: "a list", dict: "an object"}[type(entry[key])]
            raise EntryError(f"`{key}` is {kind}, not a text", f"the {role} has to be a text or a number")
        case float() as number if not math.isfinite(number):
            raise EntryError(f"`{key}` is {number}, which is no number", f"the {role} has to be a text or a number")
        case number:
            return json.dumps(number)
