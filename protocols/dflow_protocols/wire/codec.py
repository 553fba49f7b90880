"""Bytes to messages and back. A message travels as [type, field, ...]; its type is its class's name in snake case.

Adding a message: write its dataclass into a family's module, add it to that family's tuple, and run the vectors'
test with `--rewrite`. Changing or removing one needs a new WIRE_VERSION (frame.py).
"""

from __future__ import annotations

import re
from typing import Any, Final

from .bulk import BULK_MESSAGES
from .client import CLIENT_MESSAGES
from .fields import WireError, decode_fields, fields_of, unpack
from .gossip import GOSSIP_MESSAGES, REACH_MESSAGES, RELAY_MESSAGES
from .packing import pack, values_of
from .steps import STEP_MESSAGES


def type_name(cls: type) -> str:
    """`RecordPut` -> `record_put`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


MESSAGES: Final[dict[str, type]] = {
    type_name(cls): cls
    for family in (GOSSIP_MESSAGES, REACH_MESSAGES, RELAY_MESSAGES, STEP_MESSAGES, BULK_MESSAGES, CLIENT_MESSAGES)
    for cls in family
}
_TYPES: Final = {cls: name for name, cls in MESSAGES.items()}
_DECODERS: Final = {name: (cls, fields_of(cls)) for name, cls in MESSAGES.items()}


def to_wire(message: Any) -> tuple[Any, ...]:
    """A message as the tuple that `pack` writes. Raises TypeError for what is no message."""
    name = _TYPES.get(type(message))
    if name is None:
        raise TypeError(f"{type(message).__name__} is not a message")
    return (name, *values_of(message))


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
