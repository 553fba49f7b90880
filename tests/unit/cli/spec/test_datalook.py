"""Data files: what the file and the spec decide together is told before a run, not after an hour of it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from dflow_cli.spec import datalook
from dflow_cli.spec.datalook import look_at_data
from dflow_protocols.pipeline import Pipeline, Stage
from dflow_protocols.pipeline.files import named_files
from dflow_protocols.pipeline.grammar.problem import Findings

ADAMW = {"adamw": {"lr": 1e-3}}


def look(folder: Path, lines: list[str], *, share: float | None = 0.5, prompts: int = 2, demos: int = 2) -> Findings:
    """What is found in a file of these lines by a pipeline that samples, imitates and, of a share, evaluates."""
    (folder / "words.jsonl").write_text("\n".join(lines))
    return look_at(folder, {"jsonl": "words.jsonl"}, share=share, prompts=prompts, demos=demos)


def look_at(
    folder: Path, source: dict[str, Any], *, share: float | None = 0.5, prompts: int = 2, demos: int = 2
) -> Findings:
    """As `look`, for a data set as a spec describes it."""
    stages = [
        Stage(
            "warm",
            "sft",
            "policy",
            when="step < 1",
            config={"data": "w", "demos": demos, "batch": 1, "optimizer": ADAMW},
        ),
        Stage(
            "roll", "generate", "policy", when="step >= 1", config={"data": "w", "prompts": prompts, "max_tokens": 4}
        ),
        Stage("score", "reward"),
        Stage("adv", "advantage"),
        Stage("learn", "train", "policy", config={"leaves": 1, "optimizer": ADAMW}),
    ]
    if share is not None:
        stages.append(Stage("heldout", "evaluate", "policy", config={"data": "w.held_out"}))
    held_out = None if share is None else {"share": share, "count": 2}
    data = {"w": {**source, "held_out": held_out}}
    models = {"policy": {"path": "model/"}}
    pipeline = Pipeline(name="words", steps=2, models=models, data=data, stages=stages)
    (named,) = (named for named in named_files(pipeline) if named.path.startswith("data."))
    return look_at_data(named, pipeline, folder)


def words(count: int, answer: str = "x") -> list[str]:
    return [json.dumps({"prompt": f"word {index}", "answer": answer}) for index in range(count)]


def test_enough_of_everything_is_no_word_worth(tmp_path: Path) -> None:
    assert look(tmp_path, words(40)) == Findings()


@pytest.mark.parametrize(
    ("lines", "share", "words_told"),
    [
        (words(40), 1e-9, "`heldout` evaluates what is held out, and the share holds out none of 40 entries"),
        (words(40), 0.999999999, "all of 40 entries of words.jsonl are held out, and `warm` reads the others"),
        (words(1) * 30, 0.5, "30 entries of words.jsonl"),  # one prompt is on one side, however often it is there
        ([""], 0.5, "words.jsonl has no entries"),
    ],
)
def test_a_part_of_the_data_that_has_no_entry_is_a_mistake(
    tmp_path: Path, lines: list[str], share: float, words_told: str
) -> None:
    """The run would fail where it is first read: at its first evaluation, with a night behind it."""
    (problem,) = look(tmp_path, lines, share=share).problems
    assert words_told in problem.what


@pytest.mark.parametrize(("share", "told"), [(0.001, "the share holds out none"), (0.9999, "are held out, and `roll`")])
def test_a_part_that_a_mixture_reads_and_that_has_no_entry_is_a_mistake_too(
    tmp_path: Path, share: float, told: str
) -> None:
    """Of a mixture the run fails as well, whatever its other data sets hold."""
    (tmp_path / "words.jsonl").write_text("\n".join(words(4)))
    held_out = {"share": share, "count": 2}
    pipeline = Pipeline(
        name="words",
        steps=2,
        models={"policy": {"path": "model/"}},
        data={
            "w": {"jsonl": "words.jsonl", "held_out": held_out},
            "more": {"jsonl": "more.jsonl"},
            "both": {"mix": {"w": 1, "more": 1}},
        },
        stages=[
            Stage("roll", "generate", "policy", config={"data": "both", "prompts": 2, "max_tokens": 4}),
            Stage("score", "reward"),
            Stage("adv", "advantage"),
            Stage("learn", "train", "policy", config={"leaves": 1, "optimizer": ADAMW}),
            Stage("heldout", "evaluate", "policy", config={"data": "both.held_out"}),
        ],
    )
    named = next(named for named in named_files(pipeline) if named.path.startswith("data.w."))
    (problem,) = look_at_data(named, pipeline, tmp_path).problems
    assert told in problem.what


@pytest.mark.parametrize(
    ("lines", "settings", "path", "told"),
    [
        (words(40), {"prompts": 50}, "stages[1].config.prompts", "`prompts` is 50, and words.jsonl has"),
        (words(40), {"demos": 50}, "stages[0].config.demos", "`demos` is 50, and words.jsonl has"),
        (words(40), {"share": 0.1}, "data.w.held_out.count", "`count` is 2, and words.jsonl has 1 different ones"),
    ],
)
def test_fewer_entries_than_a_stage_wants_is_told(
    tmp_path: Path, lines: list[str], settings: dict[str, Any], path: str, told: str
) -> None:
    """It runs: some entries come twice, or fewer are evaluated than the spec says."""
    found = look(tmp_path, lines, **settings)
    assert found.problems == []
    (warning,) = found.warnings
    assert warning.path == path
    assert told in warning.what


def test_empty_answers_are_a_doubt_where_they_are_taught_or_matched(tmp_path: Path) -> None:
    """A model learns to say nothing by either, and its figures call that right."""
    taught, matched = look(tmp_path, words(40, " ")).warnings
    assert (taught.path, matched.path) == ("stages[0].config.data", "stages[2].config.function")
    assert "answers of words.jsonl are empty: it is taught silence" in taught.what
    assert "answers of words.jsonl are empty: only who says nothing is right" in matched.what


def test_a_conversation_that_ends_in_a_question_has_no_answer_to_match(tmp_path: Path) -> None:
    """Nothing else tells that its answer stands elsewhere: a row without the key of a prompt's answer is refused."""
    talk = [{"role": role, "content": text} for role, text in (("user", "a"), ("assistant", "b"), ("user", "c"))]
    lines = [json.dumps({"talk": [*talk, {"role": "user", "content": str(at)}], "right": "x"}) for at in range(20)]
    (tmp_path / "words.jsonl").write_text("\n".join(lines))
    (warning,) = look_at(tmp_path, {"jsonl": "words.jsonl", "messages": "talk"}).warnings
    assert "20 answers of words.jsonl are empty: only who says nothing is right" in warning.what
    assert look_at(tmp_path, {"jsonl": "words.jsonl", "messages": "talk", "answer": "right"}).warnings == []


def test_mistakes_that_are_not_told_one_by_one_are_counted(tmp_path: Path) -> None:
    """Three of forty told is a file that is mended three times."""
    found = look(tmp_path, [*words(20), *['{"prompt": null}'] * 40])
    assert [problem.what.partition(" ")[0] for problem in found.problems] == [
        "words.jsonl:21:",
        "words.jsonl:22:",
        "words.jsonl:23:",
        "words.jsonl:",
    ]
    assert "37 more lines are no entries, 40 of 60" in found.problems[-1].what


def test_a_file_that_is_looked_at_in_part_is_not_judged_by_that_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing wrong in the first lines is not nothing wrong."""
    monkeypatch.setattr(datalook, "LINES_READ", 10)
    found = look(tmp_path, words(11), prompts=50)
    assert found.problems == []
    assert [warning.what for warning in found.warnings] == [
        "words.jsonl: only the first 10 lines were looked at; engines read all"
    ]


@pytest.mark.parametrize(
    ("kind", "name", "told"),
    [
        ("csv", "words.csv", "words.csv:3: `prompt` is empty"),
        ("csv", "words.csv", "words.csv:4: it has 3 values"),
        ("parquet", "words", "words/b.parquet:2: `prompt` is null, not a text"),
        ("arrow", "words", "words holds several splits: train, test"),
    ],
)
def test_a_row_that_is_no_entry_is_named_in_every_format(tmp_path: Path, kind: str, name: str, told: str) -> None:
    (tmp_path / "words").mkdir()
    (tmp_path / "words.csv").write_text("prompt,answer\na,b\n ,c\nd,e,f\n")
    for part, prompts in (("a", ["x"]), ("b", ["y", None])):
        parquet.write_table(pa.table({"prompt": prompts, "answer": prompts}), tmp_path / f"words/{part}.parquet")
    for split in ("train", "test"):
        (tmp_path / f"words/{split}.arrow").touch()
    assert any(told in problem.what for problem in look_at(tmp_path, {kind: name}).problems)


def test_a_conversation_without_an_answer_is_told_where_answers_are_trained_on(tmp_path: Path) -> None:
    """A reward may judge without one; training has nothing to learn there."""
    asked = [{"role": "user", "content": "a"}]
    lines = [{"talk": [*asked, {"role": "assistant", "content": "b"}]}, {"talk": asked}]
    (tmp_path / "talks.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (problem, *_) = look_at(tmp_path, {"jsonl": "talks.jsonl", "messages": "talk"}, share=None).problems
    assert problem.path == "stages[0].config.data"
    assert problem.what == "stage `warm`: talks.jsonl:2: no turn of the assistant, so nothing to train on"


def test_a_table_that_cannot_be_read_here_is_a_doubt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hosts that compute may have what this one lacks."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = look_at(tmp_path, {"parquet": "words"})
    assert found.problems == []
    assert "pyarrow, which reads `parquet` files, is not installed here" in found.warnings[0].what
    assert "pip install '.[data]'" in found.warnings[0].hint
