"""A row of a data file: an entry, or what is wrong with it and what to do."""

from __future__ import annotations

import re

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


PAIR = Keys("prompt", "good", rejected="bad")
TALKS = Keys(None, None, "good", "bad")
ASKED = {"role": "user", "content": "1 + 1"}


def said(text: str) -> Row:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize("bad", ["3", 3, [said("3")], [ASKED, said("3")]])
@pytest.mark.parametrize("good", ["2", 2, [said("2")], [ASKED, said("2")]])
def test_an_answer_of_a_pair_is_a_text_or_where_a_conversation_ends(good: object, bad: object) -> None:
    """Data sets of preferences have all of these, with the prompt in the conversation and without it."""
    row = make_entry({"prompt": "1 + 1", "good": good, "bad": bad}, PAIR)
    assert (row["question"], row["answer"], row["rejected"]) == ("1 + 1", "2", "3")


@pytest.mark.parametrize("bad", ["3", [said("3")], [ASKED, said("3")]])
def test_a_conversation_has_the_better_answer_in_itself(bad: object) -> None:
    """Then the row needs no prompt beside it."""
    row = make_entry({"good": [ASKED, said("2")], "bad": bad}, TALKS)
    assert (row["question"], row["answer"], row["rejected"]) == ("1 + 1", "2", "3")


@pytest.mark.parametrize(
    ("row", "keys", "what", "hint"),
    [
        ({"good": 2}, PAIR, "no key `bad`", "keys there: `prompt`, `good`; .* `rejected: KEY`"),
        ({"good": 2, "bad": None}, PAIR, "`bad` is null", "a text or a number"),
        ({"good": 2, "bad": [ASKED]}, PAIR, "`bad` ends in no turn of the assistant", "`rejected: KEY`"),
        ({"good": 2, "bad": []}, PAIR, "`bad` ends in no turn of the assistant", "take the line out"),
        ({"good": 2, "bad": ["3"]}, PAIR, "`bad.0.` is no message", "a list such as"),
        ({"good": 2, "bad": "2"}, PAIR, "`good` and `bad` are the same answer", "take the line out"),
        (
            {"good": 2, "bad": [{**ASKED, "content": "1 + 2"}, said("3")]},
            PAIR,
            "`bad` answers something else",
            "one prompt",
        ),
        ({"good": [ASKED], "bad": "3"}, TALKS, "`good` ends in no turn of the assistant", "`answer: KEY`"),
        ({"good": [ASKED, said("2")], "bad": [said("Hm"), ASKED, said("3")]}, TALKS, "`bad` answers something", "one"),
    ],
)
def test_a_row_that_is_no_pair_says_why(row: Row, keys: Keys, what: str, hint: str) -> None:
    """Two answers alike teach nothing, and answers to two prompts something that nobody meant."""
    with pytest.raises(EntryError, match=what) as caught:
        make_entry({"prompt": "1 + 1", **row}, keys)
    assert re.search(hint, caught.value.hint)
