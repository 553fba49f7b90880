"""Files of rows, in whatever format: what they say, and which row says it wrongly."""

from __future__ import annotations

import codecs
import gzip
import lzma
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from dflow_protocols.pipeline.entries.problem import EntryError
from dflow_protocols.pipeline.entries.rows import how_to_open, read_rows


def rows(path: Path, kind: str) -> list[tuple[int, Any]]:
    """(number, row, or what is wrong with it) of a file."""
    with path.open(**how_to_open(kind)) as file:
        return [(n, row.what if isinstance(row, EntryError) else row) for n, row in read_rows(kind, file, pyarrow)]


def written(folder: Path, kind: str, data: bytes) -> list[tuple[int, Any]]:
    (folder / "data").write_bytes(data)
    return rows(folder / "data", kind)


def test_lines_are_counted_as_editors_do(tmp_path: Path) -> None:
    """Empty ones count and are passed over; so do the line ends of all systems, and a mark at the start."""
    assert written(tmp_path, "jsonl", b'\xef\xbb\xbf{"a": 1}\r\n\n \n{"b": 2}\n{"c": "\xff"}') == [
        (1, {"a": 1}),
        (4, {"b": 2}),
        (5, "not text in UTF-8"),
    ]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize(
    ("data", "what"),
    [
        (gzip.compress(b'{"prompt": "a", "answer": "b"}\n' * 50, mtime=0), "compressed by gzip"),
        (b"\x28\xb5\x2f\xfd\x04\n\xff", "compressed by zstd"),
        (lzma.compress(b"a"), "compressed by xz"),
        (b"PK\x03\x04\n\xff\n", "a ZIP archive or a workbook"),
        (b"PAR1\x15\n\xff\n", "a Parquet file"),
        (b"ARROW1\0\0\xff\n", "an Arrow file"),
        ("a,b\n1,2\n".encode("utf-16"), "text in UTF-16"),
        (codecs.BOM_UTF16_BE + "a,b\n1,2\n".encode("utf-16-be"), "text in UTF-16"),
    ],
)
def test_a_file_of_another_kind_is_told_once_by_what_it_is(tmp_path: Path, kind: str, data: bytes, what: str) -> None:
    """Data sets come compressed. Each "line" of one was told as no UTF-8, with the advice to save it so."""
    ((number, told),) = written(tmp_path, kind, data)
    assert number == 0
    assert told == f"{what}, not in UTF-8" if "UTF-16" in what else told == f"{what}, not text"


def test_a_table_of_values_is_read_by_the_keys_of_its_first_line(tmp_path: Path) -> None:
    """As spreadsheets write it: a mark at the start, line ends of their own, and values with commas and line breaks."""
    data = b'\xef\xbb\xbfprompt,answer\r\n"1, 2 and?\r\n4",3\r\n\r\n"say ""a""",a\r\n'
    assert written(tmp_path, "csv", data) == [
        (2, {"prompt": "1, 2 and?\r\n4", "answer": "3"}),
        (5, {"prompt": 'say "a"', "answer": "a"}),
    ]


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (
            b"a,b\n1,2\n3\n4,5,6\n7,8\n",
            {3: "it has 1 values, and", 4: "it has 3 values, and the first line names 2 keys"},
        ),
        (b"a,,c\n1,2,3\n", {1: "value 2 of the first line is blank"}),
        (b"a,b,a\n1,2,3\n", {1: "the first line names `a` twice"}),
        (b"a;b\n1;2\n", {1: "the first line names one key, `a;b`"}),
        (b'a,b\n"x"y,2\n3,4\n', {2: "not CSV: ',' expected after '\"'"}),
        (b'a,b\n1,"2\n3,4\n', {2: "not CSV: unexpected end of data"}),
        (b"a,b\n1,\xff\n3,4\n", {2: "not text in UTF-8"}),
        (b"a,\xff\n1,2\n", {1: "not text in UTF-8"}),
    ],
)
def test_a_line_of_values_that_is_none_is_named(tmp_path: Path, data: bytes, found: dict[int, str]) -> None:
    """The others are read all the same, so that all mistakes are told at once."""
    wrong = {number: what for number, what in written(tmp_path, "csv", data) if isinstance(what, str)}
    assert wrong.keys() == found.keys()
    assert all(told in wrong[number] for number, told in found.items())


def test_without_a_line_of_keys_nothing_else_is_told(tmp_path: Path) -> None:
    """The line behind it would be taken for one, and each line after that be wrong."""
    assert written(tmp_path, "csv", b'"a"x,b\n1,2\n3,4\n') == [(1, "not CSV: ',' expected after '\"'")]


def test_a_long_value_is_read(tmp_path: Path) -> None:
    """Python's own bound is 131,072 characters, which is a document."""
    ((_, row),) = written(tmp_path, "csv", b"a\n" + b"x" * 200_000)
    assert len(row["a"]) == 200_000
