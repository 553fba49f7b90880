"""A row of a data file: an entry, or what is wrong with it and what to do."""

from __future__ import annotations

import pytest

from dflow_protocols.pipeline.entries.entry import Keys, Row, hashed_text, is_held_out, make_entry
from dflow_protocols.pipeline.entries.problem import EntryError
from dflow_protocols.pipeline.entries.rows import jsonl_rows


def read_entry(line: str, prompt: str, answer: str) -> Row:
    ((_, row),) = jsonl_rows([line])
    return make_entry(row, Keys(prompt, answer))


def test_prompt_and_answer_come_from_the_keys_that_hold_them() -> None:
    """Whatever they are called there, and all else stays for the reward to read."""
    entry = read_entry('{"q": "1 + 1", "a": 2, "level": "easy"}', "q", "a")
    assert entry == {"q": "1 + 1", "a": 2, "level": "easy", "question": "1 + 1", "answer": "2"}
    assert read_entry('{"prompt": "x", "answer": 0.5}', "prompt", "answer")["answer"] == "0.5"


def test_a_key_with_dots_leads_into_objects() -> None:
    """Data sets made for verl and siiRL have the right answer in one; a key that is called so itself comes first."""
    row = '{"prompt": "x", "reward_model": {"ground_truth": 7, "style": "rule"}}'
    assert read_entry(row, "prompt", "reward_model.ground_truth")["answer"] == "7"
    assert read_entry('{"prompt": "x", "a.b": "1", "a": {"b": "2"}}', "prompt", "a.b")["answer"] == "1"
    for missing in ("reward_model.truth", "prompt.ground_truth"):
        with pytest.raises(EntryError, match=f"no key `{missing}`"):
            read_entry(row, "prompt", missing)


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
        ('{"prompt": ["a"], "answer": "b"}', "`prompt` is a list, not a text", "is named by `messages: prompt`"),
        ('{"prompt": "a", "answer": true}', "`answer` is true or false, not a text", "a text or a number"),
        ('{"prompt": " \\n", "answer": "b"}', "`prompt` is empty", "take the line out"),
        (
            '{"prompt": "a\\ud83d", "answer": "b"}',
            "`prompt` has .ud83d, which is half a character",
            "take the line out",
        ),
        ('{"prompt": "a", "answer": "\\udc00"}', "`answer` has .udc00, which is half a character", "take the line out"),
        ('{"prompt": "a\udcff", "answer": "b"}', "not text in UTF-8", "save the file as UTF-8"),
        ('{"prompt": "a", "answer": NaN}', "`answer` is nan, which is no number", "a text or a number"),
        ('{"prompt": "a", "answer": 1e999}', "`answer` is inf, which is no number", "a text or a number"),
        ('{"prompt": "a", "answer": ' + "1" * 5000 + "}", "a number of thousands of digits", "as a text"),
        ('{"prompt": "a", "answer": "b", "answer": "c"}', "`answer` is written twice", "keep one"),
        ('{"prompt": "a\0", "answer": "b"}', "not JSON: Invalid control character", "one JSON object a line"),
        ('[{"prompt": "a", "answer": "b"}]', "not a JSON object", "jq -c"),
        ("[\n", "not JSON", "jq -c"),
        ('{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1}', "no key `prompt`", "`h` and 2 more; name"),
    ],
)
def test_a_line_that_is_no_entry_says_which_key_and_what_to_do(line: str, what: str, hint: str) -> None:
    """The line's number is put before it by who reads the file."""
    with pytest.raises(EntryError, match=what) as caught:
        read_entry(line, "prompt", "answer")
    assert hint in caught.value.hint


def test_which_questions_are_held_out_is_fixed_for_ever() -> None:
    """What one spec trains on, no other spec with the same share evaluates on; also not after an upgrade."""
    held_out = [word for word in ("acorn", "badge", "cabin", "dairy", "eagle", "fable") if is_held_out(word, 0.3)]
    assert held_out == ["cabin"]
    assert not any(is_held_out(word, 0.0) for word in ("acorn", "badge"))
    assert hashed_text("Acorn", "question_lower") == "acorn"
    assert hashed_text("Acorn", "question") == "Acorn"
