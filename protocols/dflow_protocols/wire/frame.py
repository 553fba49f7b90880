"""The envelope of the control lane: all that is due to one peer in one turn, in one frame.

Two plain bytes (a mark, the wire version), then msgpack of [delta, messages]. The version stands outside of what
it governs, so that a later one may change everything behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from .codec import from_wire, to_wire
from .fields import MAX_FRAME_BYTES, MAX_ITEMS, WireError, decoder, unpack
from .heartbeat import Delta, Heartbeat
from .packing import pack

WIRE_VERSION: Final = 11
MARK: Final = 0xDF  # first byte of every frame; tells a stray protocol from a broken frame

_decode_delta: Final = decoder(Delta | None)


@dataclass(frozen=True, slots=True)
class Frame:
    """`delta`: where the sender is in its runs, as far as that is news; None in a frame that only carries messages.
    `messages`: handled in order."""

    delta: Delta | None
    messages: tuple[Any, ...]
    wire_version: int = WIRE_VERSION

    @property
    def heartbeats(self) -> tuple[Heartbeat, ...]:
        """Those that the receiver may lack."""
        return self.delta.heartbeats if self.delta is not None else ()


def encode_frame(delta: Delta | None, messages: Sequence[Any]) -> bytes:
    """Raises TypeError for what is no message, ValueError for a frame that no peer would take."""
    body = pack((delta, tuple(to_wire(message) for message in messages)))
    if len(body) + 2 > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {len(body)} bytes, more than {MAX_FRAME_BYTES}: send its messages apart")
    if len(body) > MAX_ITEMS:  # in fewer bytes no list is too long
        try:
            unpack(body)
        except WireError as error:
            raise ValueError(f"a frame that no peer would take: {error}") from None
    return bytes((MARK, WIRE_VERSION)) + body


def parts_of(frame: Frame) -> tuple[Frame, ...]:
    """What is due to one peer and fits into no frame: the heartbeats, then the messages, or half of those and the other
    half. What is one thing alone has no parts."""
    if frame.delta is not None and frame.messages:
        return Frame(frame.delta, ()), Frame(None, frame.messages)
    half = len(frame.messages) // 2
    return (Frame(None, frame.messages[:half]), Frame(None, frame.messages[half:])) if half else ()


def decode_frame(data: bytes) -> Frame:
    """Raises WireError, and nothing else, whatever the bytes."""
    if len(data) < 2 or data[0] != MARK:
        raise WireError("not a frame")
    if data[1] != WIRE_VERSION:
        raise WireError(f"wire version {data[1]}; this node speaks {WIRE_VERSION}", "wire_version")
    body = unpack(memoryview(data)[2:])
    if type(body) is not tuple or len(body) != 2 or type(body[1]) is not tuple or len(body[1]) > MAX_ITEMS:
        raise WireError("not a delta and a list of messages")
    try:
        delta = _decode_delta(body[0])
    except WireError as error:
        raise error.within("delta") from None
    return Frame(delta, tuple(from_wire(message) for message in body[1]))
