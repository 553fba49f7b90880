"""The conformance vectors: one worked example of each message, as JSON beside its bytes.

`python -m tests.unit.protocols.wire.vectors --rewrite` writes them anew; the diff shows what changed on the wire.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import types
import typing
from typing import Any

from dflow_protocols.names import Part, part_of
from dflow_protocols.wire.codec import MESSAGES, encode
from dflow_protocols.wire.frame import WIRE_VERSION, encode_frame
from dflow_protocols.wire.gossip import Ping
from dflow_protocols.wire.heartbeat import Delta
from tests.support.repository import ROOT

FOLDER = ROOT / "protocols" / "vectors"
_WHO = ("NodeId", "RunId")


def example(hint: Any, name: str = "") -> Any:
    """A value of a type, the same on every call. `name`: of the field, which texts and numbers follow from."""
    if hint == Part:
        return part_of(name)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = typing.get_type_hints(hint)
        return hint(**{f.name: example(hints[f.name], f.name) for f in dataclasses.fields(hint)})
    if isinstance(hint, typing.NewType):
        return f"{len(name):02x}" * (16 if hint.__name__ in _WHO else 32)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return example(args[0], name)
    if origin is typing.Literal:
        return args[-1]
    if origin is tuple:
        if args[1:] == (...,):
            return (example(args[0], name), example(args[0], name + "s"))
        return tuple(example(arg, f"{name}{index}") for index, arg in enumerate(args))
    return {int: 300 + len(name), float: len(name) + 0.5, str: name, bytes: name.encode(), bool: True}[hint]


def readable(value: Any) -> Any:
    """A message as JSON: dataclasses as objects, bytes as hexadecimal text after `0x`."""
    if isinstance(value, Part):
        return str(value)
    if dataclasses.is_dataclass(value):
        return {f.name: readable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [readable(item) for item in value]
    return "0x" + value.hex() if isinstance(value, bytes) else value


def vector(name: str) -> str:
    """The text of one vector's file."""
    message = example(MESSAGES[name])
    told = {"wire_version": WIRE_VERSION, "type": name, "fields": readable(message), "msgpack": encode(message).hex()}
    return json.dumps(told, indent=1) + "\n"


def frame_vector() -> str:
    """The text of the one of a frame."""
    delta, message = example(Delta), example(Ping)
    told = {"wire_version": WIRE_VERSION, "delta": readable(delta), "messages": [["ping", readable(message)]]}
    return json.dumps({**told, "frame": encode_frame(delta, (message,)).hex()}, indent=1) + "\n"


def main() -> None:
    if sys.argv[1:] != ["--rewrite"]:
        raise SystemExit("usage: python -m tests.unit.protocols.wire.vectors --rewrite")
    for old in FOLDER.glob("*.json"):
        old.unlink()
    for name in MESSAGES:
        (FOLDER / f"{name}.json").write_text(vector(name))
    (FOLDER / "frame.json").write_text(frame_vector())


if __name__ == "__main__":
    main()
