"""Files as sources of entries: whatever their format, the same rows are the same data."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import ipc, parquet

from dflowd.data.order import DataSet
from dflowd.jobs.failures import HostError, UserError

ROWS = [{"prompt": f"What is {n} + 1?\n", "answer": str(n + 1), "level": "easy"} for n in range(40)]
HELD_OUT = {"by": "question", "share": 0.3, "count": 40}


def write(folder: Path, kind: str, rows: list[dict[str, Any]], parts: int = 3) -> None:
    """A folder of several files of a format."""
    (folder / kind).mkdir()
    size = -(-len(rows) // parts)
    for part in range(parts):
        path, own = folder / kind / f"train-0000{part}-of-0000{parts}.{kind}", rows[part * size : (part + 1) * size]
        if kind == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in own))
        elif kind == "csv":
            with path.open("w", newline="") as file:
                table = csv.DictWriter(file, list(own[0]))
                table.writeheader()
                table.writerows(own)
        elif kind == "parquet":
            parquet.write_table(pa.Table.from_pylist(own), path)
        else:
            made = pa.Table.from_pylist(own)
            with ipc.new_stream(path, made.schema) as writer:
                writer.write_table(made)


def opened(folder: Path, kind: str, name: str | None = None) -> DataSet:
    config = {kind: name or kind, "prompt": "prompt", "answer": "answer", "held_out": HELD_OUT}
    return DataSet("sums", config, folder, 7)


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow"])
def test_the_same_rows_are_the_same_data_in_every_format(tmp_path: Path, kind: str) -> None:
    """Which are trained on, in which order, and which are held out: a run does not change by a change of format."""
    for each in ("jsonl", kind):
        write(tmp_path, each, ROWS)
    first, other = opened(tmp_path, "jsonl"), opened(tmp_path, kind, f"{kind}/train-*")
    assert [first.training(at) for at in range(90)] == [other.training(at) for at in range(90)]
    assert [first.held_out(at) for at in range(40)] == [other.held_out(at) for at in range(40)]


def test_a_row_is_named_by_its_file_and_number(tmp_path: Path) -> None:
    """The second file's rows count from 1 again, as who opens that file sees them."""
    write(tmp_path, "parquet", [*ROWS[:20], {**ROWS[20], "answer": None}], parts=2)
    with pytest.raises(UserError, match=r"^train-00001-of-00002\.parquet:10: `answer` is null, not a text; "):
        opened(tmp_path, "parquet")
    write(tmp_path, "arrow", ROWS, parts=2)
    data = opened(tmp_path, "arrow")
    assert data.source.place(data.source.entry(20)) == "train-00001-of-00002.arrow:1"


def test_a_host_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is that host's want: another one may have it."""
    write(tmp_path, "parquet", ROWS)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        HostError, match=r"data\.sums: `parquet` files are read by pyarrow, .*; pip install '\.\[data\]'"
    ):
        opened(tmp_path, "parquet")
