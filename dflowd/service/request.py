"""What a request may hold, and what an answer may be: checked before anything is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgpack

from dflow_protocols.wire.client import Response

MOST_ROWS = 100_000
MOST_ANSWER_BYTES = (4 << 20) - (1 << 13)  # a frame, less its envelope
EXIT_FAILED, EXIT_INPUT = 1, 2
MOST_NUMBER = 1 << 53  # of a parameter

Params = Mapping[str, Any]
Answer = Callable[[Response], object]


class Refusal(Exception):
    """A request that cannot be answered: what, where to look, and the exit code that it means to a script.

    `elsewhere`: another daemon may well be able to, so a client asks on.
    """

    def __init__(self, what: str, hint: str, exit_code: int = EXIT_INPUT, elsewhere: bool = False) -> None:
        super().__init__(what)
        self.value: dict[str, Any] = {"what": what, "hint": hint, "exit": exit_code}
        if elsewhere:
            self.value["elsewhere"] = True


def unpack(data: bytes) -> dict[str, Any]:
    try:
        value = msgpack.unpackb(data) if data else {}
    except (ValueError, msgpack.UnpackException):
        value = None
    if not isinstance(value, dict):
        raise Refusal("the parameters are no map", "ask with a `dflow` of the daemon's version")
    return value


def fitting(value: dict[str, Any]) -> bytes:
    """The answer as msgpack, short enough for a frame: of a list that is too long the latest half stays, and so on."""
    packed: bytes = msgpack.packb(value)
    while len(packed) > MOST_ANSWER_BYTES:
        name = max((name for name in value if isinstance(value[name], list)), key=lambda name: len(value[name]))
        rows = value[name]
        value = {**value, name: rows[len(rows) - len(rows) // 2 :], "cut": True}
        packed = msgpack.packb(value)
    return packed


def typed(params: Params, name: str, kind: type) -> Any:
    value = params.get(name)
    if not isinstance(value, kind):
        raise Refusal(f"parameter `{name}` must be a {kind.__name__}", "ask with a `dflow` of the daemon's version")
    return value


def number_of(params: Params, name: str, default: float) -> float:
    """A finite number. Raises Refusal for anything else."""
    value = params.get(name)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int | float) or not -MOST_NUMBER <= value <= MOST_NUMBER:
        raise Refusal(f"parameter `{name}` must be a number", "ask with a `dflow` of the daemon's version")
    return value


def limit_of(params: Params, default: int) -> int:
    value = params.get("limit")
    return min(value, MOST_ROWS) if isinstance(value, int) and value > 0 else default
