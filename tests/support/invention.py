"""Inventions: well-formed messages that nobody honest would send, made from the messages' own types.

Owns what a lying member may say; knows nothing of worlds. Most inventions are a true message with a few fields
changed, since what is nearly right gets furthest; ids are mostly such as were heard, so that lies meet real books.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any

from dflow_protocols.events import Rng
from dflow_protocols.wire.codec import MESSAGES
from dflow_protocols.wire.fields import MAX_INT
from dflow_protocols.wire.frame import Frame
from dflow_protocols.wire.gossip import GOSSIP_MESSAGES
from dflow_protocols.wire.heartbeat import Delta, Heartbeat, Mark
from dflow_protocols.wire.steps import STEP_MESSAGES

MAX_HEARD = 400  # values remembered of each type
MAX_CHANGES = 3  # fields of a true message that one lie changes
LONGEST = 5  # items of an invented list
_EDGES = (0, 0, 1, 1, 2, 3, 5, 64, 65, 1 << 20, 1 << 32, 1 << 62, MAX_INT)
_FLOATS = (0.0, -1.0, 0.5, 1e300, -1e300, 5e-324, 7)
_TEXTS = ("", "p0", "p77", "b0-1", "b1-0", "s0-1", "s0-99999999", "manifest", "update", "params:policy", "\n", "é" * 9)
_DIGITS = "0123456789abcdef"
_LENGTHS = {"NodeId": 32, "RunId": 32}


class Inventor:
    """Draws lies. `hear` it true messages first."""

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._heard: dict[Any, list[Any]] = {}
        self._messages: list[Any] = []
        self._frames = 0

    def hear(self, message: Any) -> None:
        """Remember a true message (or heartbeat), and what is in it."""
        if type(message) in MESSAGES.values():
            self._keep(self._messages, message)
        for hint, value in _parts(type(message), message):
            if not isinstance(value, tuple):
                self._keep(self._heard.setdefault(hint, []), value)

    def frame(self) -> Frame:
        """A frame of a few lies."""
        messages = tuple(self.message() for _ in range(1 + self._rng.randrange(3)))
        heartbeats = tuple(self._value(Heartbeat) for _ in range(self._rng.randrange(3)))
        self._frames += 1  # what was overtaken by a newer word is not even looked at
        return Frame(Delta(Mark(1, self._frames), self._value(int), self._value(Mark | None), heartbeats), messages)

    def message(self) -> Any:
        """A lie about membership, or about a run."""
        if self._messages and self._rng.random() < 0.7:
            true = self._rng.choice(self._messages)
            for _ in range(1 + self._rng.randrange(MAX_CHANGES)):
                true = self._changed(type(true), true)
            return true
        return self._anew(self._rng.choice((*STEP_MESSAGES, *GOSSIP_MESSAGES)))

    def _keep(self, values: list[Any], value: Any) -> None:
        if len(values) < MAX_HEARD:
            values.append(value)
        else:
            values[self._rng.randrange(MAX_HEARD)] = value

    def _changed(self, hint: Any, value: Any) -> Any:
        """The same value with one part of it replaced, at a depth drawn on the way down."""
        if dataclasses.is_dataclass(hint) and isinstance(hint, type) and self._rng.random() < 0.9:
            name, inner = self._rng.choice(_fields(hint))
            return dataclasses.replace(value, **{name: self._changed(inner, getattr(value, name))})
        if isinstance(value, tuple) and value and self._rng.random() < 0.7:
            at = self._rng.randrange(len(value))
            args = typing.get_args(hint)
            inner = args[0] if args[1:] == (...,) else args[at]
            return (*value[:at], self._changed(inner, value[at]), *value[at + 1 :])
        return self._value(hint)

    def _anew(self, cls: type) -> Any:
        return cls(**{name: self._value(inner) for name, inner in _fields(cls)})

    def _value(self, hint: Any) -> Any:
        """Any value of a type: one that was heard, or an invention."""
        heard = self._heard.get(hint)
        if heard and self._rng.random() < 0.7:
            return self._rng.choice(heard)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            return self._anew(hint)
        if isinstance(hint, typing.NewType):
            return "".join(self._rng.choice(_DIGITS) for _ in range(_LENGTHS.get(hint.__name__, 64)))
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if origin in (types.UnionType, typing.Union):
            given = [arg for arg in args if arg is not type(None)]
            return None if type(None) in args and self._rng.random() < 0.3 else self._value(self._rng.choice(given))
        if origin is typing.Literal:
            return self._rng.choice(args)
        if origin is tuple:
            if args[1:] == (...,):
                return tuple(self._value(args[0]) for _ in range(self._rng.randrange(LONGEST)))
            return tuple(self._value(arg) for arg in args)
        plain: dict[Any, tuple[Any, ...]] = {int: _EDGES, float: _FLOATS, str: _TEXTS, bytes: (b"", b"\xc1", b"x" * 32)}
        return self._rng.choice(plain.get(hint, (True, False)))


@cache
def _fields(cls: type) -> tuple[tuple[str, Any], ...]:
    hints = typing.get_type_hints(cls)
    return tuple((field.name, hints[field.name]) for field in dataclasses.fields(cls))


def _parts(hint: Any, value: Any) -> Iterator[tuple[Any, Any]]:
    """Every value inside a message, with its declared type."""
    if value is None:
        return
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        yield from _parts(next((arg for arg in args if arg is type(value)), args[0]), value)
    elif dataclasses.is_dataclass(hint) and isinstance(hint, type):
        yield hint, value
        for name, inner in _fields(hint):
            yield from _parts(inner, getattr(value, name))
    elif origin is tuple:
        inners = [args[0]] * len(value) if args[1:] == (...,) else args
        for inner, item in zip(inners, value, strict=True):
            yield from _parts(inner, item)
    else:
        yield hint, value


assert set(STEP_MESSAGES) | set(GOSSIP_MESSAGES) <= set(MESSAGES.values())
