"""Which entry comes where: a function of names, never of what was asked before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dflowd.data.order import DataSet, shuffled
from dflowd.jobs.failures import UserError

SPELL = {"reasoning_gym": "spell_backward", "config": {"min_word_len": 3, "max_word_len": 5}}
HELD_OUT = {"by": "question_lower", "share": 0.1, "count": 50}


def spell(seed: int = 0, **more: Any) -> DataSet:
    return DataSet("words", {**SPELL, "held_out": HELD_OUT, **more}, Path("."), seed)


def jsonl(folder: Path, count: int, held_out: dict[str, Any] | None = None) -> DataSet:
    lines = [json.dumps({"q": f"Question {n}", "a": n}) for n in range(count)]
    (folder / "data.jsonl").write_text("\n".join(lines))
    config = {"jsonl": "data.jsonl", "prompt": "q", "answer": "a", "held_out": held_out}
    return DataSet("mine", config, folder, 0)


def test_a_position_has_its_entry_whatever_was_asked_before() -> None:
    """Nodes run the partitions of a step in any order, and steps are redone."""
    one, other = spell(), spell()
    forwards = [one.training(position) for position in range(50)]
    backwards = [other.training(position) for position in reversed(range(50))]
    assert forwards == backwards[::-1]
    assert other.training(10**12)["answer"]


def test_held_out_questions_are_never_trained_on() -> None:
    """Accuracy is of words that no step ever saw, upper case or lower."""
    data = spell()
    held_out = {str(data.held_out(index)["question"]).lower() for index in range(50)}  # type: ignore[index]
    assert len(held_out) == 50
    trained = {str(data.training(position)["question"]).lower() for position in range(3000)}
    assert not held_out & trained
    reseeded = spell(1)
    assert not any(str(reseeded.training(position)["question"]).lower() in held_out for position in range(1000))


def test_demonstrations_are_a_fixed_set_shuffled_anew_each_epoch() -> None:
    """`demos: 20` means 20 entries, each seen once an epoch."""
    data = spell()
    epochs = [
        [data.demonstration(20 * epoch + at, 20)["metadata"]["source_index"] for at in range(20)] for epoch in (0, 1)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert epochs[0] != epochs[1]


def test_an_epoch_of_a_file_has_each_entry_once(tmp_path: Path) -> None:
    """The order is shuffled, the set is not."""
    data = jsonl(tmp_path, 10)
    epoch = [data.training(position)["question"] for position in range(10)]
    assert sorted(epoch) == sorted(f"Question {n}" for n in range(10))
    assert [data.training(position)["question"] for position in range(10, 20)] != epoch
    assert data.training(3)["answer"].isdigit()


def test_a_file_is_split_once_and_runs_out(tmp_path: Path) -> None:
    """Past the last held-out question there is none, and nobody makes one up."""
    data = jsonl(tmp_path, 60, {"by": "question", "share": 0.3, "count": 60})
    held_out = [entry["question"] for index in range(60) if (entry := data.held_out(index)) is not None]
    trained = {data.training(position)["question"] for position in range(60 - len(held_out))}
    assert 5 < len(held_out) < 40
    assert len(trained) + len(held_out) == 60
    assert not trained & set(held_out)


@pytest.mark.parametrize(
    ("text", "error"),
    [("{}", "data.jsonl:1: no key `q`"), ("{", "data.jsonl:1: not JSON"), ("\n", "has no entries")],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, error: str) -> None:
    """The user's file is the user's to mend."""
    (tmp_path / "data.jsonl").write_text(text)
    with pytest.raises(UserError, match=error):
        DataSet("mine", {"jsonl": "data.jsonl", "prompt": "q", "answer": "a"}, tmp_path, 0)


def test_what_is_too_long_is_no_part_of_the_data(tmp_path: Path) -> None:
    """Neither trained on nor held out, and the rest keeps its order whatever was asked before."""

    def opened() -> DataSet:
        config = {"jsonl": "data.jsonl", "prompt": "q", "answer": "a", "max_prompt_tokens": 4, "long_prompts": "drop"}
        config |= {"held_out": {"by": "question", "share": 0.3, "count": 60}}
        return DataSet("mine", config, tmp_path, 0, measure=lambda entry: int(entry["answer"]))

    jsonl(tmp_path, 60)
    data = opened()
    kept = [data.training(position)["answer"] for position in range(20)]
    held_out = [entry["answer"] for index in range(60) if (entry := data.held_out(index)) is not None]
    assert sorted({*kept, *held_out}) == ["0", "1", "2", "3", "4"]
    assert data.dropped == 55
    again = opened()
    assert [again.training(position)["answer"] for position in reversed(range(20))] == kept[::-1]


def test_a_task_without_end_goes_on_until_a_prompt_is_short_enough() -> None:
    data = DataSet("words", {**SPELL, "held_out": HELD_OUT, "max_prompt_tokens": 3}, Path("."), 0, measure=word_length)
    assert {word_length(data.training(position)) for position in range(30)} == {3}
    assert word_length(data.held_out(5) or {}) == 3


def word_length(entry: dict[str, Any]) -> int:
    return len(str(entry["answer"]))


def test_an_unknown_task_is_the_users_error() -> None:
    """As is a setting that the task does not know."""
    with pytest.raises(UserError, match=r"data\.words: reasoning-gym's spell_backwards"):
        spell(reasoning_gym="spell_backwards")


def test_nothing_held_out_is_said_so(tmp_path: Path) -> None:
    """An accuracy over no questions would read as a result."""
    data = jsonl(tmp_path, 3, {"by": "question", "share": 1e-9, "count": 3})
    with pytest.raises(UserError, match=r"raise `held_out\.share`"):
        data.held_out(0)


def test_a_shuffle_is_a_permutation_in_every_epoch() -> None:
    """No entry twice before all were seen."""
    for epoch in range(3):
        assert sorted(shuffled(b"key", 7 * epoch + at, 7) for at in range(7)) == list(range(7))
