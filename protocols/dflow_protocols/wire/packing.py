"""Values to bytes. What many are told of, and is long, is packed once: it keeps its bytes, and is passed on as it came.

A packed value is one msgpack `bin`: a byte that says how, then msgpack of the value's fields, deflated if that is long.
Its ids stand in it several times over, as what one record made is what the next one read: so a manifest is a fifth as
long. What would be less than a FOLD-th of it travels plain, and is refused otherwise: who is sent few bytes has little
to make of them.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from functools import cache, cached_property
from operator import attrgetter
from typing import Any, Final

import msgpack

from ..names import Part

PLAIN, DEFLATED = b"\0", b"\1"
DEFLATE_FROM: Final = 4_096  # bytes; what is shorter has the same bytes whatever library deflates
LEVEL: Final = 1
FOLD: Final = 16  # times as long as its bytes a packed value is at most; content ids, of which seals are, are noise


class Packed:
    """A dataclass that travels packed."""

    @cached_property
    def packed(self) -> bytes:
        """Itself, as it travels."""
        plain = pack(values_of(self))
        if len(plain) < DEFLATE_FROM:
            return PLAIN + plain
        deflated = zlib.compress(plain, LEVEL)
        return DEFLATED + deflated if len(plain) < FOLD * len(deflated) else PLAIN + plain

    def came_as(self, data: bytes) -> None:
        """It was made of these bytes, and is passed on as these."""
        self.__dict__["packed"] = data


def inflated(data: bytes, most: int) -> bytes:
    """What a packed value's bytes hold. Raises ValueError for what is not packed, or longer than `most` bytes or FOLD
    times its own."""
    how, rest = data[:1], data[1:]
    if how == PLAIN and len(rest) <= most:
        return rest
    if how != DEFLATED:
        raise ValueError("not packed, or too long")
    machine, most = zlib.decompressobj(), min(most, FOLD * len(rest))
    try:
        plain = machine.decompress(rest, most)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not machine.eof or machine.unused_data:
        raise ValueError(f"cut, followed by something, or more than {most} bytes")
    return plain


def pack(value: Any) -> bytes:
    """msgpack of tuples, plain values and the dataclasses among them."""
    packed: bytes = msgpack.packb(value, use_bin_type=True, default=_plain)
    return packed


def values_of(thing: Any) -> tuple[Any, ...]:
    """A dataclass's fields in order."""
    cls: Any = type(thing)
    return _getter(cls)(thing)


def _plain(thing: Any) -> Any:
    """What msgpack writes for what it doesn't know."""
    cls: Any = type(thing)
    return _form(cls)(thing)


@cache
def _form(cls: Any) -> Callable[[Any], Any]:
    """A part's text, a packed value's bytes, any other dataclass's fields."""
    if issubclass(cls, Part):
        return str
    return attrgetter("packed") if issubclass(cls, Packed) else _getter(cls)


@cache
def _getter(cls: type) -> Callable[[Any], tuple[Any, ...]]:
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{cls.__name__} has no wire form")
    names = [f.name for f in dataclasses.fields(cls)]
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda thing: (get(thing),)
