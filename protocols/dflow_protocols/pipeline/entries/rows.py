"""Rows of a data file, each with its number as a person counts: the line it begins on, or its place in a table.

A row that is none comes as the EntryError that says why, so that who reads may go on. A number of 0 is the whole file.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import IO, Any, TypeAlias

from ..grammar.text import is_text
from .entry import Row
from .problem import EntryError
from .tables import NEEDS_PYARROW, arrow_rows, parquet_rows

Numbered: TypeAlias = Iterator[tuple[int, "Row | EntryError"]]

ONE_OBJECT = 'write one JSON object a line, such as {"prompt": "1 + 1", "answer": "2"}'
FROM_LIST = "write one JSON object a line; a file that is one JSON list becomes that by: jq -c '.[]' OLD > NEW"
ENCODING, ERRORS = "utf-8-sig", "surrogateescape"
"""How a text file is opened: what is no UTF-8 comes as half surrogates, which are refused with their line."""
OTHER_MARKS = {";": "semicolons", "\t": "tabs", "|": "bars"}  # that programs put between values
FOREIGN: Mapping[bytes, tuple[str, str]] = {
    b"\x1f\x8b": ("compressed by gzip, not text", "unpack it first: gunzip FILE.gz"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd, not text", "unpack it first: unzstd FILE.zst"),
    b"\xfd7zXZ": ("compressed by xz, not text", "unpack it first: unxz FILE.xz"),
    b"PK\x03\x04": ("a ZIP archive or a workbook, not text", "unpack it, or have the program save it as text"),
    b"PAR1\x15": ("a Parquet file, not text", "name it by `parquet: FILE`"),
    b"ARROW1\0\0": ("an Arrow file, not text", "name it by `arrow: FILE`"),
    b"\xff\xfe": ("text in UTF-16, not in UTF-8", "save the file as UTF-8: iconv -f UTF-16 -t UTF-8 OLD > NEW"),
    b"\xfe\xff": ("text in UTF-16, not in UTF-8", "save the file as UTF-8: iconv -f UTF-16 -t UTF-8 OLD > NEW"),
}
"""What is wrong with a file that begins so, and what to do."""
LONGEST_VALUE = (1 << 31) - 1  # characters of a value in a CSV file; Python's own bound is 131,072


def how_to_open(kind: str) -> Mapping[str, Any]:
    """Arguments of `open` for a file of this format."""
    if kind in NEEDS_PYARROW:
        return {"mode": "rb"}
    # A line break within a value of a CSV file is the value's.
    return {"encoding": ENCODING, "errors": ERRORS, "newline": "" if kind == "csv" else None}


def read_rows(kind: str, file: IO[Any], pyarrow: Any) -> Numbered:
    """The rows of a file of one of the formats, opened as `how_to_open` says. `pyarrow`: the package, where the format
    needs it."""
    if kind in NEEDS_PYARROW:
        return TABLES[kind](file, pyarrow)
    first = file.readline()
    head = first[:8].encode(errors=ERRORS)
    for mark, (what, hint) in FOREIGN.items():
        if head.startswith(mark):
            return iter([(0, EntryError(what, hint))])
    return TEXTS[kind](chain([first] if first else [], file))


def jsonl_rows(file: Iterable[str]) -> Numbered:
    """One JSON object a line; lines that say nothing are passed over."""
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                yield number, _object(line)
            except EntryError as error:
                yield number, error


def _object(line: str) -> Row:
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
    return found


def _pairs(pairs: list[tuple[str, Any]]) -> Row:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise EntryError(f"`{twice}` is written twice", "keep one of them")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs)  # one for all lines: making it takes longer than a line


def csv_rows(file: Iterable[str]) -> Numbered:
    """Values with commas between them; the first line names their keys. All of them are texts."""
    csv.field_size_limit(LONGEST_VALUE)
    reader = csv.reader(file, strict=True)
    keys: list[str] = []
    while True:
        first = reader.line_num + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            hint = 'a value with a comma, a quote or a line break stands in quotes, a quote in it twice: "say ""a"""'
            yield first, EntryError(f"not CSV: {error}", hint)
            if not keys:
                return  # the line after it is no line of keys
            continue
        if not values:
            continue
        try:
            if keys:
                yield first, _row(keys, values)
            else:
                keys = _header(values)
        except EntryError as error:
            yield first, error
            if not keys:
                return


def _header(names: list[str]) -> list[str]:
    if not all(map(is_text, names)):
        raise EntryError("not text in UTF-8", "save the file as UTF-8")
    if len(names) == 1 and (mark := next((mark for mark in OTHER_MARKS if mark in names[0]), None)):
        what = f"the first line names one key, `{' '.join(names[0].split())}`"
        raise EntryError(what, f"save the file with commas between its values, not {OTHER_MARKS[mark]}")
    for place, name in enumerate(names, 1):
        if not name.strip():
            what = f"value {place} of the first line is blank, where the key of that column should stand"
            raise EntryError(what, "the first line names the keys: give each column one")
        if name in names[: place - 1]:
            raise EntryError(f"the first line names `{name}` twice", "rename one of both columns")
    return names


def _row(keys: list[str], values: list[str]) -> Row:
    if not all(map(is_text, values)):
        raise EntryError("not text in UTF-8", "save the file as UTF-8")
    if len(values) != len(keys):
        what = f"it has {len(values)} values, and the first line names {len(keys)} keys"
        raise EntryError(what, "put a value that holds a comma or a line break into quotes")
    return dict(zip(keys, values, strict=True))


TEXTS: Mapping[str, Callable[[Iterable[str]], Numbered]] = {"jsonl": jsonl_rows, "csv": csv_rows}
TABLES: Mapping[str, Callable[[IO[Any], Any], Numbered]] = {"parquet": parquet_rows, "arrow": arrow_rows}
"""By the key of a data set that names the files."""
