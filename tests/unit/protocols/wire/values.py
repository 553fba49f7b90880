"""Hypothesis strategies made of the same type hints that decoders are."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

from hypothesis import strategies as st

from dflow_protocols.names import MAX_SHARD_BYTES, Part, ShardRef, part_of
from dflow_protocols.wire.fields import MAX_INT
from dflow_protocols.wire.listing import FileRef
from tests.unit.protocols.wire.vectors import example


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """All that a field of this type may hold."""
    if hint == Part:
        return (st.text(max_size=9) | st.from_regex(r"[pbs]\d{1,3}(-\d{1,3})?", fullmatch=True)).map(part_of)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = typing.get_type_hints(hint)
        if hint is ShardRef:
            return st.builds(ShardRef, values_of(hints["id"]), st.integers(1, MAX_SHARD_BYTES))
        if hint is FileRef:
            name = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=9)
            return st.builds(FileRef, values_of(str), name, values_of(ShardRef))
        return st.builds(hint, **{f.name: values_of(hints[f.name]) for f in dataclasses.fields(hint)})
    if isinstance(hint, typing.NewType):
        return st.text("0123456789abcdef", min_size=(n := len(example(hint))), max_size=n)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return st.none() | values_of(args[0])
    if origin is typing.Literal:
        return st.sampled_from(args)
    if origin is tuple:
        if args[1:] == (...,):
            return st.lists(values_of(args[0]), max_size=2).map(tuple)
        return st.tuples(*(values_of(arg) for arg in args))
    finite = st.floats(allow_nan=False, allow_infinity=False)
    plain = {int: st.integers(0, MAX_INT), float: finite, str: st.text(max_size=9), bytes: st.binary(max_size=9)}
    return plain.get(hint, st.booleans())
