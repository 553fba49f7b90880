"""Which files a key of a data set names."""

from __future__ import annotations

import json

import pytest

from dflow_protocols.pipeline.entries.parts import parts_of
from dflow_protocols.pipeline.entries.problem import EntryError
from tests.unit.protocols.pipeline.test_files import Written


def folder(*names: str, **texts: str) -> Written:
    return Written(dict.fromkeys(names, "") | texts)


SHARDS = ("d/data/test-00000-of-00001.parquet", *(f"d/data/train-0000{n}-of-00002.parquet" for n in (1, 0)))


@pytest.mark.parametrize(
    ("kind", "name", "found"),
    [
        ("jsonl", "words", ["words"]),
        ("parquet", "many", ["many/a.parquet", "many/b.parquet", "many/deep/c.parquet"]),
        ("parquet", "many/", ["many/a.parquet", "many/b.parquet", "many/deep/c.parquet"]),
        ("parquet", "d/data/train-*", [SHARDS[2], SHARDS[1]]),
        ("jsonl", "w*", ["words"]),
        ("jsonl", "many", []),
        ("jsonl", "nowhere", []),
    ],
)
def test_a_name_is_of_a_file_of_a_folder_or_of_a_pattern(kind: str, name: str, found: list[str]) -> None:
    """In the order of their names: on every host the same rows have the same numbers."""
    here = folder("words", "many/b.parquet", "many/a.parquet", "many/deep/c.parquet", "many/.c/x.parquet", *SHARDS)
    assert parts_of(kind, name, here) == found


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (SHARDS, "such as `parquet: d/data/train*.parquet`"),  # as most lie on the hub
        (("d/en/train/0.parquet", "d/en/test/0.parquet"), "such as `parquet: d/en/train`"),
        (("d/maths-train.parquet", "d/maths-test.parquet"), "such as `parquet: d/maths-train*.parquet`"),
        (
            ("d/test/train-or-test/train_0.parquet", "d/x/Test0.parquet"),
            "`parquet: d/test/train-or-test/train*.parquet`",
        ),
        (("d/train.parquet", "d/test.parquet"), "such as `parquet: d/train*.parquet`"),
        (("d/train/0.parquet", "d/test/0.parquet"), "such as `parquet: d/train`"),
    ],
)
def test_a_folder_of_several_splits_is_not_read_as_one(names: tuple[str, ...], hint: str) -> None:
    """Else a run trains on what is there to test by."""
    here = folder(*names)
    with pytest.raises(EntryError, match="holds several splits: train, test") as caught:
        parts_of("parquet", "d", here)
    assert hint in caught.value.hint


def test_files_of_one_split_and_files_of_none_are_read_as_one() -> None:
    """`latest` is no test, and a folder of topics has no splits."""
    for names in (("d/train-1.csv", "d/train-2.csv"), ("d/latest.csv", "d/training.csv"), ("d/a.csv", "d/test/b.csv")):
        assert parts_of("csv", "d", folder(*names)) == list(names)


def test_of_a_saved_data_set_its_own_list_is_read() -> None:
    """`datasets` leaves its caches beside it."""
    state = json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]})
    here = folder("s/cache-1.arrow", "s/data-00000-of-00001.arrow", **{"s/state.json": state})
    assert parts_of("arrow", "s", here) == ["s/data-00000-of-00001.arrow"]
