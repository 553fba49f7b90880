"""Columns of token shards as numpy arrays, and back, without a copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from dflowd.shards.layout import Column

_DTYPES = {"i32": np.int32, "i64": np.int64, "f32": np.float32, "u8": np.uint8}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}

Array = npt.NDArray[Any]


def pack(values: Array, lengths: Array | None = None) -> Column:
    """`values`: [n] of int32, int64, float32 or uint8. `lengths`: [rows], where the column is ragged."""
    rows = None if lengths is None else np.ascontiguousarray(lengths, np.int32)
    return Column(_NAMES[values.dtype], cast(Any, np.ascontiguousarray(values)), cast(Any, rows))


def values(column: Column) -> Array:
    """All values of a column, [n]."""
    return np.frombuffer(cast(Any, column.data), _DTYPES[column.dtype])


def lengths(column: Column) -> Array:
    """Values per row of a ragged column, [rows] int32."""
    if column.lengths is None:
        raise ValueError("the column has no rows")
    return np.frombuffer(cast(Any, column.lengths), np.int32)


def without_number(column: Column) -> Array:
    """Which rows have NaN for their number, or for one of their numbers; [rows] bool."""
    if column.lengths is None:
        return np.asarray(np.isnan(values(column)))
    return np.array([bool(np.isnan(row).any()) for row in rows(column)], np.bool_)


def own_tokens(batch: Mapping[str, Column]) -> list[Array] | None:
    """Of each row of a batch or a rollout which tokens are the model's to say, bool; None: all of them are."""
    if "mask" in batch:
        return [row.astype(np.bool_) for row in rows(batch["mask"])]
    return [row >= 0 for row in rows(batch["turn"])] if "turn" in batch else None


def own_lengths(batch: Mapping[str, Column]) -> Array:
    """How many tokens of each completion the model said itself, [rows]."""
    own = own_tokens(batch)
    return lengths(batch["tokens"]) if own is None else np.array([int(row.sum()) for row in own], np.int32)


def rows(column: Column) -> list[Array]:
    """A ragged column's rows."""
    return np.split(values(column), np.cumsum(lengths(column))[:-1]) if len(lengths(column)) else []


def joined(column: Column, more: Sequence[Array]) -> Column:
    """A ragged column each of whose rows goes on with one of `more`."""
    whole = [np.concatenate((row, each.astype(row.dtype))) for row, each in zip(rows(column), more, strict=True)]
    return pack(np.concatenate(whole), np.array([len(row) for row in whole], np.int32)) if whole else column
