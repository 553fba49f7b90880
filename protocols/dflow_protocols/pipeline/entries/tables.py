"""Rows of Parquet and Arrow files, read by pyarrow, which is lent by who asks: the protocols need no such package."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import IO, Any

from .entry import Row
from .problem import EntryError

NEEDS_PYARROW = ("parquet", "arrow")
INSTALL = "pip install '.[data]'"
BATCH_ROWS = 1024  # made into Python's values at once


def is_readable(kind: str) -> bool:
    """Whether files of this format can be read by this program's Python."""
    return kind not in NEEDS_PYARROW or importlib.util.find_spec("pyarrow") is not None


def parquet_rows(file: IO[Any], pyarrow: Any) -> Iterator[tuple[int, Row | EntryError]]:
    """A Parquet file's rows, counted from 1. `pyarrow`: the package, with its `parquet`."""
    return _rows("Parquet", lambda: pyarrow.parquet.ParquetFile(file).iter_batches(BATCH_ROWS), pyarrow)


def arrow_rows(file: IO[Any], pyarrow: Any) -> Iterator[tuple[int, Row | EntryError]]:
    """The rows of an Arrow file, a stream of batches (as `datasets` saves it) or one with an index of them. `pyarrow`:
    the package, with its `ipc`."""

    def batches() -> Iterator[Any]:
        try:
            stream = pyarrow.ipc.open_stream(file)
        except pyarrow.ArrowInvalid:
            file.seek(0)
            indexed = pyarrow.ipc.open_file(file)
            return (indexed.get_batch(index) for index in range(indexed.num_record_batches))
        return iter(stream)

    return _rows("Arrow", batches, pyarrow)


def _rows(kind: str, batches: Callable[[], Iterator[Any]], pyarrow: Any) -> Iterator[tuple[int, Row | EntryError]]:
    number = 0
    try:
        for batch in batches():
            names = batch.schema.names
            if twice := next((name for name in names if names.count(name) > 1), None):
                yield 0, EntryError(f"two columns are called `{twice}`", "rename one of them")
                return
            batch = _in_microseconds(batch, pyarrow)
            for at in range(0, batch.num_rows, BATCH_ROWS):
                for row in batch.slice(at, BATCH_ROWS).to_pylist(maps_as_pydicts="strict"):
                    number += 1
                    yield number, _plain_row(row)
    except (MemoryError, GeneratorExit):
        raise
    except Exception as error:  # pyarrow has its own for each thing that a file may have wrong
        what = f"not {kind} that can be read: {' '.join(str(error).split())[:200]}"
        after = f" (after row {number})" if number else ""
        yield 0, EntryError(what + after, f"write it anew, or name the right file as `{kind.lower()}`")


def _in_microseconds(batch: Any, pyarrow: Any) -> Any:
    """The batch with its times as Python has them. Of nanoseconds pyarrow makes values of pandas, other ones where that
    is not installed, so that a row would be a function of the host."""
    fields = [field.with_type(_coarser(field.type, pyarrow)) for field in batch.schema]
    if [field.type for field in fields] == batch.schema.types:
        return batch
    arrays = [array.cast(field.type, safe=False) for array, field in zip(batch.columns, fields, strict=True)]
    return pyarrow.RecordBatch.from_arrays(arrays, schema=pyarrow.schema(fields))


def _coarser(kind: Any, pyarrow: Any) -> Any:
    """A type with microseconds in the place of nanoseconds, at any depth."""
    types = pyarrow.types
    if getattr(kind, "unit", "") == "ns":
        if types.is_timestamp(kind):
            return pyarrow.timestamp("us", kind.tz)
        return pyarrow.duration("us") if types.is_duration(kind) else pyarrow.time64("us")
    if types.is_struct(kind):
        return pyarrow.struct([field.with_type(_coarser(field.type, pyarrow)) for field in kind])
    if types.is_map(kind):
        return pyarrow.map_(kind.key_type, _coarser(kind.item_type, pyarrow))
    for is_list, make in ((types.is_list, pyarrow.list_), (types.is_large_list, pyarrow.large_list)):
        if is_list(kind):
            return make(kind.value_field.with_type(_coarser(kind.value_type, pyarrow)))
    return kind


def _plain_row(row: Row) -> Row | EntryError:
    try:
        return {key: _plain(value, key) for key, value in row.items()}
    except EntryError as error:
        return error


def _plain(value: Any, key: str) -> Any:
    """What JSON can say of a value: dates as ISO 8601 writes them, to the microsecond, decimals and durations as texts,
    bytes as the UTF-8 that they are."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case dict():
            return {str(name): _plain(inner, key) for name, inner in value.items()}
        case list() | tuple():
            return [_plain(inner, key) for inner in value]
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError as error:
                hint = "an entry holds texts, numbers, lists and mappings: write the file without that column"
                raise EntryError(f"`{key}` holds bytes that are no text", hint) from error
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
