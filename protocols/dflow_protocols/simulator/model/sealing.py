"""Frames that pass through relays: what one member closed for another, nobody else can have closed or can open."""

from __future__ import annotations

from ...names import NodeId
from ...wire.frame import Frame, decode_frame, encode_frame


def close(origin: NodeId, to: NodeId, frame: Frame) -> bytes:
    return _seal(origin, to) + encode_frame(frame.delta, frame.messages)


def opened(origin: NodeId, to: NodeId, sealed: bytes) -> Frame | None:
    """The frame, if `origin` closed it for `to`; a relay may bring anything."""
    seal = _seal(origin, to)
    return decode_frame(sealed.removeprefix(seal)) if sealed.startswith(seal) else None


def _seal(origin: NodeId, to: NodeId) -> bytes:
    return f"{origin}>{to}:".encode()
