"""Parquet and Arrow: rows as plain values, and what of a table is no entry."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import ipc, parquet

from tests.unit.protocols.pipeline.entries.test_rows import rows

NESTED = [
    {"prompt": "a", "tags": ["x", None], "more": {"level": 1, "when": None}},
    {"prompt": "b", "tags": [], "more": None},
]


def write(path: Path, form: str, table: pa.Table) -> None:
    if form == "parquet":
        parquet.write_table(table, path)
        return
    make = ipc.new_stream if form == "stream" else ipc.new_file
    with make(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=1)


@pytest.mark.parametrize(("form", "kind"), [("parquet", "parquet"), ("stream", "arrow"), ("file", "arrow")])
def test_nested_rows_come_as_plain_values_in_their_order(tmp_path: Path, form: str, kind: str) -> None:
    """A reward of the user's own reads them as it reads JSON."""
    write(tmp_path / "data", form, pa.Table.from_pylist(NESTED))
    assert rows(tmp_path / "data", kind) == list(enumerate(NESTED, 1))


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (datetime.date(2024, 7, 26), "2024-07-26"),
        (datetime.datetime(2024, 7, 26, 1, 2), "2024-07-26T01:02:00"),
        (Decimal("1.50"), "1.50"),
        (b"text", "text"),
        ([("k", 1)], {"k": 1}),
    ],
)
def test_what_json_cannot_say_comes_as_a_text(tmp_path: Path, value: Any, plain: Any) -> None:
    """Entries go to rewards, and into results for people, as JSON."""
    column = pa.array([value], pa.map_(pa.string(), pa.int64())) if isinstance(value, list) else pa.array([value])
    write(tmp_path / "data", "parquet", pa.table({"a": column}))
    assert rows(tmp_path / "data", "parquet") == [(1, {"a": plain})]


NANOSECONDS = [
    (pa.timestamp("ns"), 1700000000123456789, "2023-11-14T22:13:20.123456"),
    (pa.timestamp("ns", "UTC"), 1700000000123456789, "2023-11-14T22:13:20.123456+00:00"),
    (pa.duration("ns"), 1234567, "0:00:00.001234"),
    (pa.time64("ns"), 123456789, "00:00:00.123456"),
]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@pytest.mark.parametrize(("type_", "value", "plain"), NANOSECONDS)
def test_nanoseconds_are_one_text_on_all_hosts(
    tmp_path: Path, kind: str, type_: pa.DataType, value: int, plain: str
) -> None:
    """pandas writes them; where it is not installed pyarrow reads no such row, and where it is its texts are others."""
    inner = pa.array([value], type_)
    columns = {
        "a": inner,
        "list": pa.array([[value]], pa.list_(type_)),
        "large": pa.array([[value]], pa.large_list(type_)),
        "in": pa.StructArray.from_arrays([inner], names=["b"]),
        "map": pa.array([[("k", value)]], pa.map_(pa.string(), type_)),
    }
    write(tmp_path / "data", "stream" if kind == "arrow" else kind, pa.table(columns))
    told = {"a": plain, "list": [plain], "large": [plain], "in": {"b": plain}, "map": {"k": plain}}
    assert rows(tmp_path / "data", kind) == [(1, told)]


def test_bytes_that_are_no_text_are_named_by_row_and_column(tmp_path: Path) -> None:
    """Such as a picture."""
    write(tmp_path / "data", "parquet", pa.table({"a": ["x", "y"], "picture": [b"p", b"\xff\xd8"]}))
    assert rows(tmp_path / "data", "parquet")[1] == (2, "`picture` holds bytes that are no text")


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_another_file_in_its_place_is_told(tmp_path: Path, kind: str) -> None:
    """Whatever pyarrow says of it."""
    (tmp_path / "data").write_text('{"prompt": "a"}\n')
    ((number, what),) = rows(tmp_path / "data", kind)
    assert number == 0
    assert what.startswith(f"not {kind.capitalize()} that can be read: ")


def test_columns_of_one_name_are_told(tmp_path: Path) -> None:
    """Python would take the last of them."""
    write(tmp_path / "data", "stream", pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["a", "a"]))
    assert rows(tmp_path / "data", "arrow") == [(0, "two columns are called `a`")]
