"""Bytes to messages and back. A message travels as [type, field, ...]; its type is its class's name in snake case.

Adding a message: write its dataclass into a family's module, add it to that family's tuple, and run the vectors'
test with `--rewrite`. Changing or removing one needs a new WIRE_VERSION (frame.py).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Any, Final

import msgpack

from ..names import Part
from .bulk import BULK_MESSAGES
from .client import CLIENT_MESSAGES
from .fields import MAX_BYTES, MAX_ITEMS, WireError, decode_fields, field_decoders
from .gossip import GOSSIP_MESSAGES, REACH_MESSAGES, RELAY_MESSAGES
from .steps import STEP_MESSAGES

MAX_FRAME_BYTES: Final = 4 << 20  # a seal of thousands of records fits; what is larger is a shard


def type_name(cls: type) -> str:
    """`RecordPut` -> `record_put`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


MESSAGES: Final[dict[str, type]] = {
    type_name(cls): cls
    for family in (GOSSIP_MESSAGES, REACH_MESSAGES, RELAY_MESSAGES, STEP_MESSAGES, BULK_MESSAGES, CLIENT_MESSAGES)
    for cls in family
}
_TYPES: Final = {cls: name for name, cls in MESSAGES.items()}
_DECODERS: Final = {name: (cls, field_decoders(cls)) for name, cls in MESSAGES.items()}


def to_wire(message: Any) -> tuple[Any, ...]:
    """A message as the tuple that `pack` writes. Raises TypeError for what is no message."""
    name = _TYPES.get(type(message))
    if name is None:
        raise TypeError(f"{type(message).__name__} is not a message")
    return (name, *_values(message))


def from_wire(value: Any) -> Any:
    """A message from what `unpack` read. Raises WireError, its path starting with the message's type."""
    if type(value) is not tuple or not value or type(value[0]) is not str:
        raise WireError("not a message")
    known = _DECODERS.get(value[0])
    if known is None:
        raise WireError(f"unknown message type {value[0][:40]!r}")
    try:
        return decode_fields(known[0], known[1], value[1:])
    except WireError as error:
        raise error.within(value[0]) from None


def encode(message: Any) -> bytes:
    return pack(to_wire(message))


def decode(data: bytes) -> Any:
    """Raises WireError."""
    return from_wire(unpack(data))


def pack(value: Any) -> bytes:
    """msgpack of tuples, plain values and the dataclasses among them."""
    packed: bytes = msgpack.packb(value, use_bin_type=True, default=_plain)
    return packed


def unpack(data: bytes | memoryview) -> Any:
    """One msgpack value with arrays as tuples. Raises WireError."""
    if len(data) > MAX_FRAME_BYTES:
        raise WireError(f"{len(data)} bytes, more than {MAX_FRAME_BYTES}")
    try:
        return msgpack.unpackb(
            data,
            use_list=False,
            max_array_len=MAX_ITEMS,  # an array's claimed length is allocated before its items are read
            max_map_len=0,  # no message holds a map, so no peer chooses hash keys
            max_ext_len=0,
            max_str_len=MAX_BYTES,
            max_bin_len=MAX_FRAME_BYTES,
        )
    except (ValueError, msgpack.UnpackException) as error:
        raise WireError(f"not msgpack: {error or type(error).__name__}") from None


def _plain(thing: Any) -> Any:
    """What msgpack writes for what it doesn't know: a part's text, any other dataclass's fields."""
    return str(thing) if isinstance(thing, Part) else _values(thing)


def _values(thing: Any) -> tuple[Any, ...]:
    """A dataclass's fields in order."""
    cls: Any = type(thing)
    return _getter(cls)(thing)


@cache
def _getter(cls: type) -> Callable[[Any], tuple[Any, ...]]:
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{cls.__name__} has no wire form")
    names = [f.name for f in dataclasses.fields(cls)]
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda thing: (get(thing),)
