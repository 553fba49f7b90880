"""A line of a data file: an entry, or what is wrong with it and what to do."""

from __future__ import annotations

import pytest

from dflow_protocols.pipeline.entries import EntryError, numbered_lines, read_entry


def test_prompt_and_answer_come_from_the_keys_that_hold_them() -> None:
    """Whatever they are called there, and all else stays for the reward to read."""
    entry = read_entry('{"q": "1 + 1", "a": 2, "level": "easy"}', "q", "a")
    assert entry == {"q": "1 + 1", "a": 2, "level": "easy", "question": "1 + 1", "answer": "2"}
    assert read_entry('{"prompt": "x", "answer": 0.5}', "prompt", "answer")["answer"] == "0.5"


@pytest.mark.parametrize(
    ("line", "what", "hint"),
    [
        ("{", "not JSON: .* \\(column 2\\)", "one JSON object a line"),
        ("[1]", "not a JSON object", "one JSON object a line"),
        ("[" * 100_000, "not JSON that can be read", "one JSON object a line"),
        ('{"text": "a"}', "no key `prompt`", "keys there: `text`; name the one that holds it: `prompt: KEY`"),
        ('{"prompt": "a"}', "no key `answer`", "`answer: KEY`"),
        ('{"prompt": "", "answer": "b"}', "`prompt` is empty", "take the line out"),
        ('{"prompt": "a", "answer": null}', "`answer` is null, not a text", "a text or a number"),
        ('{"prompt": ["a"], "answer": "b"}', "`prompt` is a list, not a text", "a text or a number"),
        ('{"prompt": "a", "answer": true}', "`answer` is true or false, not a text", "a text or a number"),
    ],
)
def test_a_line_that_is_no_entry_says_which_key_and_what_to_do(line: str, what: str, hint: str) -> None:
    """The line's number is put before it by who reads the file."""
    with pytest.raises(EntryError, match=what) as caught:
        read_entry(line, "prompt", "answer")
    assert hint in caught.value.hint


def test_lines_are_counted_as_editors_do() -> None:
    """Empty ones count and are passed over."""
    assert list(numbered_lines(["a\n", "\n", "b"])) == [(1, "a\n"), (3, "b")]
