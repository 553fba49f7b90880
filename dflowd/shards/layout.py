"""Token data as shards: named columns, ragged without padding, laid out so that an engine maps them without a copy.

Owns the bytes of a columnar shard; knows nothing of stores or of what the columns mean. Bare float32 vectors
(parameters, gradients, slices) are shards without any header and never come here.

    4 bytes  magic "dfs1"
    4 bytes  length of the header, unsigned little-endian
    header   msgpack: [[name, dtype, values, rows or -1], ...], names sorted
    per column, each part starting on a multiple of 8: row lengths (int32, only where ragged), then the values

All numbers are little-endian. Equal columns give equal bytes, whatever order they were handed in.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

MAGIC = b"dfs1"
ALIGNMENT = 8  # widest dtype, so that every part may be cast in place
MAX_COLUMNS = 256
FORMATS = {"i32": "i", "i64": "q", "f32": "f", "u8": "B"}  # dtype -> format of memoryview.cast and array
WIDTHS = {"i32": 4, "i64": 8, "f32": 4, "u8": 1}

assert sys.byteorder == "little", "shards are mapped as they lie, and they lie little-endian"
assert all(array(FORMATS[name]).itemsize == width for name, width in WIDTHS.items())


class LayoutError(ValueError):
    """These bytes are no columnar shard, or these columns cannot be one."""


@dataclass(frozen=True, slots=True)
class Column:
    """One named column. `dtype`: i32, i64, f32 or u8.

    `data`: all values one after the other, any contiguous buffer (a numpy array of the dtype fits). `lengths`: int32
    values per row where the column is ragged, else None. What `decode` returns are memoryviews of the dtype's format
    into the shard, alive as long as its buffer is.
    """

    dtype: str
    data: Buffer
    lengths: Buffer | None = None


def column(dtype: str, values: Iterable[float]) -> Column:
    """A flat column from Python numbers."""
    return Column(dtype, array(_format(dtype), values))


def ragged(dtype: str, rows: Iterable[Iterable[float]]) -> Column:
    """A ragged column from rows of Python numbers."""
    data: array[Any] = array(_format(dtype))
    lengths = array("i")
    for row in rows:
        before = len(data)
        data.extend(row)
        lengths.append(len(data) - before)
    return Column(dtype, data, lengths)


def texts(rows: Iterable[str]) -> Column:
    """A ragged u8 column of UTF-8 strings."""
    encoded = [row.encode() for row in rows]
    return Column("u8", b"".join(encoded), array("i", map(len, encoded)))


def rows(source: Column) -> Iterator[memoryview]:
    """The rows of a ragged column, as views of the column's dtype. Raises LayoutError for a flat column."""
    if source.lengths is None:
        raise LayoutError("the column has no rows")
    data, at = _typed(source.data, source.dtype), 0
    for length in _typed(source.lengths, "i32"):
        yield data[at : at + length]
        at += length


def read_texts(source: Column) -> list[str]:
    """The strings of a column made by `texts`. Raises LayoutError where bytes are no UTF-8."""
    try:
        return [str(row, "utf-8") for row in rows(source)]
    except UnicodeDecodeError as error:
        raise LayoutError(f"a text column holds bytes that are no UTF-8: {error}") from None


def encode(columns: Mapping[str, Column]) -> bytes:
    """The shard of these columns. Raises LayoutError where lengths do not add up to the data."""
    header, parts = _plan(columns)
    pieces: list[bytes | memoryview] = [MAGIC, len(header).to_bytes(4, "little"), header]
    at = 8 + len(header)
    for part in parts:
        pieces += bytes(_align(at) - at), _flat_bytes(part)
        at = _align(at) + part.nbytes
    return b"".join(pieces)  # one copy of what may be large


def decode(shard: bytes | memoryview) -> dict[str, Column]:
    """The columns of a shard, names sorted, as views into it. Raises LayoutError for anything `encode` never wrote."""
    view = memoryview(shard).cast("B")
    if len(view) < 8 or bytes(view[:4]) != MAGIC:
        raise LayoutError("not a columnar shard: it does not begin with dfs1")
    at = 8 + int.from_bytes(view[4:8], "little")
    if at > len(view):
        raise LayoutError("the header is longer than the shard")
    columns: dict[str, Column] = {}
    for name, dtype, count, row_count in _read_header(view[8:at]):
        lengths: memoryview | None = None
        if row_count >= 0:
            at, lengths = _take(view, at, "i32", row_count)
            if sum(lengths) != count or (row_count and min(lengths) < 0):
                raise LayoutError(f"column {name}: row lengths do not add up to {count} values")
        at, data = _take(view, at, dtype, count)
        columns[name] = Column(dtype, data, lengths)
    if at != len(view):
        raise LayoutError(f"{len(view) - at} bytes after the last column")
    return columns


def _format(dtype: str) -> str:
    if dtype not in FORMATS:
        raise LayoutError(f"unknown dtype {dtype!r}: one of {', '.join(FORMATS)}")
    return FORMATS[dtype]


def _typed(buffer: Buffer, dtype: str) -> memoryview:
    view = memoryview(buffer)
    if not view.c_contiguous:
        raise LayoutError("the buffer is not contiguous")
    if view.nbytes % WIDTHS[dtype]:
        raise LayoutError(f"{view.nbytes} bytes are no whole number of {dtype} values")
    return _flat_bytes(view).cast(FORMATS[dtype])  # type: ignore[call-overload, no-any-return]


def _flat_bytes(view: memoryview) -> memoryview:
    # An empty array has a zero in its shape, which cast() refuses.
    return view.cast("B") if view.nbytes else memoryview(b"")


def _align(at: int) -> int:
    return -(-at // ALIGNMENT) * ALIGNMENT


def _plan(columns: Mapping[str, Column]) -> tuple[bytes, list[memoryview]]:
    """The packed header, and the parts that follow it."""
    entries: list[list[str | int]] = []
    parts: list[memoryview] = []
    for name in sorted(columns):
        source = columns[name]
        _format(source.dtype)
        data = _typed(source.data, source.dtype)
        row_count = -1
        if source.lengths is not None:
            lengths = _typed(source.lengths, "i32")
            row_count = len(lengths)
            if sum(lengths) != len(data) or (row_count and min(lengths) < 0):
                raise LayoutError(f"column {name}: row lengths do not add up to {len(data)} values")
            parts.append(lengths)
        parts.append(data)
        entries.append([name, source.dtype, len(data), row_count])
    if len(entries) > MAX_COLUMNS:
        raise LayoutError(f"{len(entries)} columns; at most {MAX_COLUMNS}")
    return msgpack.packb(entries), parts


def _take(view: memoryview, at: int, dtype: str, count: int) -> tuple[int, memoryview]:
    start = _align(at)
    end = start + count * WIDTHS[dtype]
    if end > len(view):
        raise LayoutError("a column reaches past the end of the shard")
    if any(view[at:start]):
        raise LayoutError("the padding between columns is not zero")
    return end, view[start:end].cast(FORMATS[dtype])  # type: ignore[call-overload]


def _read_header(packed: memoryview) -> list[tuple[str, str, int, int]]:
    try:
        entries = msgpack.unpackb(packed)
    except Exception as error:
        raise LayoutError(f"the header is no msgpack: {error}") from None
    if not isinstance(entries, list) or len(entries) > MAX_COLUMNS:
        raise LayoutError("the header is no list of columns")
    for entry in entries:
        match entry:
            case [str(), str() as dtype, int() as count, int() as row_count] if dtype in FORMATS:
                if count < 0 or row_count < -1:
                    raise LayoutError("a column has a negative length")
            case _:
                raise LayoutError("a column's header is not [name, dtype, values, rows]")
    names = [entry[0] for entry in entries]
    if names != sorted(set(names)):
        raise LayoutError("column names are not sorted, or one comes twice")
    return [tuple(entry) for entry in entries]
