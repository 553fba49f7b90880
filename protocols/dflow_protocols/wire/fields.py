"""Strict decoding: what msgpack read becomes the dataclass asked for, or a WireError that names the field.

A decoder is compiled once a class, from its type hints, into closures; bytes of a peer choose no type and no depth,
since the depth of what is read is that of the declared types. Knows nothing of messages' meaning.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections import OrderedDict
from collections.abc import Callable
from math import isfinite
from operator import call
from typing import Any, Final, NamedTuple, TypeAlias

import msgpack

from ..names import EMPTY_SHARD, MAX_SHARD_BYTES, Part, is_what, is_who, part_of
from .books import outputs_fault
from .listing import listing_fault
from .packing import Packed, inflated

MAX_TEXT: Final = 4096  # characters of a `str` field; the longest are errors and paths
MAX_BYTES: Final = 1 << 20  # of a `bytes` field; the largest is a run's spec
MAX_ITEMS: Final = 16_384  # of any list; the longest are a large mesh's members and a large step's records
MAX_INT: Final = (1 << 63) - 1
MAX_FRAME_BYTES: Final = 4 << 20  # a seal of thousands of records fits; what is larger is a shard
MAX_INFLATED: Final = 16 << 20  # bytes that a packed value holds: a seal of as many records as a list has
MAX_SEALED: Final = (4 << 20) - (1 << 12)  # bytes of a frame that goes through relays: it has to fit into theirs

_OWN_BOUND: Final = {  # fields whose bound is their own
    ("Request", "params"): 2 * MAX_BYTES,  # a spec, the list of its files and what goes with them
    ("ShardRef", "nbytes"): MAX_SHARD_BYTES,
    ("Response", "value"): (4 << 20) - (1 << 12),  # fills a frame: samples and metrics of a long run
    ("Relayed", "sealed"): MAX_SEALED,
}
# what is wrong with a field's value beyond its type, in words, if anything
_OWN_FAULT: Final[dict[tuple[str, str], Callable[[Any], str]]] = {
    ("RunPut", "files"): listing_fault,
    ("OutputsPut", "outputs"): outputs_fault,
}
_OWN_FAULT_OF_ALL: Final = {  # what is wrong with all the fields together
    "ShardRef": lambda ref: "" if ref.nbytes or ref.id == EMPTY_SHARD else "no bytes, by the name of some",
}
_TOLD_OFTEN: Final = {"Record"}  # by everybody who holds it, by replicas that are asked, and in seals: made once
MANY_MADE: Final = 4_096  # values of one class that are kept at hand: the records of a large step
SHORT_FORM: Final = 2_048  # bytes; what is longer is made each time, or a peer could have us keep much
_WHO: Final = {"NodeId", "RunId"}  # every other NewType of str is a content id

Decoder: TypeAlias = Callable[[Any], Any]


class Fields(NamedTuple):
    """Of a dataclass, in the order in which they travel."""

    names: tuple[str, ...]
    decoders: tuple[Decoder, ...]


class WireError(Exception):
    """A peer's bytes are not a message. `where`: path of the field, empty for the whole."""

    def __init__(self, what: str, where: str = "") -> None:
        super().__init__(what, where)
        self.what = what
        self.where = where

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what

    def within(self, outer: str) -> WireError:
        """The same error, seen from the value that contains this one."""
        glue = "." if self.where and not self.where.startswith("[") else ""
        return WireError(self.what, f"{outer}{glue}{self.where}")


def unpack(data: bytes | memoryview, most: int = MAX_FRAME_BYTES) -> Any:
    """One msgpack value of at most so many bytes, with arrays as tuples. Raises WireError."""
    if len(data) > most:
        raise WireError(f"{len(data)} bytes, more than {most}")
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


def decoder(hint: Any, bound: int | None = None) -> Decoder:
    """Compile the decoder of a type.

    hint: int, float, str, bytes, bool, None, a NewType of str, a Literal of strings, `Part` (it travels as its text),
    `X | None`, tuple[X, ...], tuple[X, Y], or a dataclass of such. bound: replaces the longest `str` or `bytes`, or the
    largest int. Raises TypeError for any other hint. The decoder takes what msgpack gave (arrays as tuples) and raises
    WireError, nothing else.
    """
    if hint == Part:
        return _part_decoder()
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _packed_decoder(hint) if issubclass(hint, Packed) else _dataclass_decoder(hint)
    if isinstance(hint, typing.NewType):
        return _name_decoder(hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _optional_decoder(args)
    if origin is tuple:
        return _list_decoder(args[0]) if args[1:] == (...,) else _tuple_decoder(args)
    if origin is typing.Literal:
        return _literal_decoder(args)
    if hint is str:
        return _sized_decoder(str, MAX_TEXT if bound is None else bound)
    if hint is bytes:
        return _sized_decoder(bytes, MAX_BYTES if bound is None else bound)
    if hint is int and bound is not None:
        return _bounded_decoder(bound)
    if hint in _PLAIN:
        return _PLAIN[hint]
    raise TypeError(f"no wire form for {hint!r}")


def fields_of(cls: type) -> Fields:
    hints = typing.get_type_hints(cls)
    fields = dataclasses.fields(cls)
    made = []
    for f in fields:
        place = (cls.__name__, f.name)
        decode = decoder(hints[f.name], _OWN_BOUND.get(place))
        made.append(_faultless(decode, _OWN_FAULT[place]) if place in _OWN_FAULT else decode)
    return Fields(tuple(f.name for f in fields), tuple(made))


def decode_fields(cls: type, fields: Fields, values: tuple[Any, ...]) -> Any:
    """Make a `cls` of its fields' values. Raises WireError with the field's name."""
    if len(values) != len(fields.names):
        raise WireError(f"{len(values)} fields instead of {len(fields.names)}")
    made: list[Any] = []
    try:
        made.extend(map(call, fields.decoders, values))
    except WireError as error:  # of the first that was not made
        raise error.within(fields.names[len(made)]) from None
    return cls(*made)


def _dataclass_decoder(cls: type) -> Decoder:
    fields = fields_of(cls)

    def decode(value: Any) -> Any:
        if type(value) is not tuple:
            raise WireError(f"{_kind(value)} instead of a {cls.__name__}")
        return decode_fields(cls, fields, value)

    fault_of = _OWN_FAULT_OF_ALL.get(cls.__name__)
    made = decode if fault_of is None else _faultless(decode, fault_of)
    return _kept(made) if cls.__name__ in _TOLD_OFTEN else made


def _packed_decoder(cls: type[Packed]) -> Decoder:
    decode_plain, decode_bytes = _dataclass_decoder(cls), _sized_decoder(bytes, MAX_FRAME_BYTES)

    def decode(value: Any) -> Packed:
        data: bytes = decode_bytes(value)
        try:
            plain = inflated(data, MAX_INFLATED)
        except ValueError as error:
            raise WireError(str(error)) from None
        made: Packed = decode_plain(unpack(plain, MAX_INFLATED))
        made.came_as(data)
        return made

    return decode


def _kept(decode: Decoder) -> Decoder:
    """The same, giving the value that was made of the same bytes before, if that was lately. Bytes are compared, as 2
    and 2.0 are equal and no two of a kind."""
    known: OrderedDict[bytes, Any] = OrderedDict()

    def decode_once(value: Any) -> Any:
        try:
            form = msgpack.packb(value, use_bin_type=True)
        except ValueError:  # nested deeper than msgpack before 1.2 writes, though it reads that
            return decode(value)
        if form in known:
            known.move_to_end(form)
            return known[form]
        made = decode(value)
        if len(form) <= SHORT_FORM:
            known[form] = made
            if len(known) > MANY_MADE:
                known.popitem(last=False)
        return made

    return decode_once


def _faultless(decode: Decoder, fault_of: Callable[[Any], str]) -> Decoder:
    """The same, refusing values in which `fault_of` finds something."""

    def strict(value: Any) -> Any:
        made = decode(value)
        if fault := fault_of(made):
            raise WireError(fault)
        return made

    return strict


def _name_decoder(hint: typing.NewType) -> Decoder:
    if hint.__supertype__ is not str:
        raise TypeError(f"no wire form for {hint!r}")
    label = hint.__name__
    has_form = is_who if label in _WHO else is_what

    def decode(value: Any) -> str:
        if type(value) is not str or not has_form(value):
            raise WireError(f"not a {label}")
        return value

    return decode


def _optional_decoder(args: tuple[Any, ...]) -> Decoder:
    inner = [arg for arg in args if arg is not type(None)]
    if len(inner) != 1 or len(args) != 2:
        raise TypeError(f"no wire form for a choice of {args!r}")
    some = decoder(inner[0])
    return lambda value: None if value is None else some(value)


def _list_decoder(item: Any) -> Decoder:
    decode_item = decoder(item)

    def decode(value: Any) -> tuple[Any, ...]:
        if type(value) is not tuple:
            raise WireError(f"{_kind(value)} instead of a list")
        if len(value) > MAX_ITEMS:
            raise WireError(f"{len(value)} items, more than {MAX_ITEMS}")
        made: list[Any] = []
        try:
            made.extend(map(decode_item, value))  # not a comprehension: that would not know which one was bad
        except WireError as error:
            raise error.within(f"[{len(made)}]") from None
        return tuple(made)

    return decode


def _tuple_decoder(items: tuple[Any, ...]) -> Decoder:
    decoders = tuple(decoder(item) for item in items)

    def decode(value: Any) -> tuple[Any, ...]:
        if type(value) is not tuple:
            raise WireError(f"{_kind(value)} instead of a list")
        if len(value) != len(decoders):
            raise WireError(f"{len(value)} items instead of {len(decoders)}")
        made: list[Any] = []
        try:
            made.extend(map(call, decoders, value))
        except WireError as error:
            raise error.within(f"[{len(made)}]") from None
        return tuple(made)

    return decode


def _literal_decoder(choices: tuple[Any, ...]) -> Decoder:
    allowed = {str(choice): choice for choice in choices}

    def decode(value: Any) -> Any:
        if type(value) is not str or value not in allowed:
            raise WireError(f"not one of {', '.join(allowed)}")
        return allowed[value]

    return decode


def _sized_decoder(kind: type[str] | type[bytes], bound: int) -> Decoder:
    def decode(value: Any) -> Any:
        if type(value) is not kind:
            raise WireError(f"{_kind(value)} instead of {kind.__name__}")
        if len(value) > bound:
            raise WireError(f"{len(value)} long, more than {bound}")
        return value

    return decode


def _part_decoder() -> Decoder:
    text = _sized_decoder(str, MAX_TEXT)
    return lambda value: part_of(text(value))


def _decode_int(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_INT:
        raise WireError(f"{_kind(value)} instead of an int from 0 to 2^63 - 1")
    return value


def _bounded_decoder(bound: int) -> Decoder:
    def decode(value: Any) -> int:
        number: int = _decode_int(value)
        if number > bound:
            raise WireError(f"{number}, more than {bound}")
        return number

    return decode


def _decode_float(value: Any) -> float:
    # A whole number stays an int, as Python's typing has it: 2 and 2.0 have other bytes, so other content ids.
    if type(value) is float and isfinite(value):
        return value
    if type(value) is int and -MAX_INT <= value <= MAX_INT:
        return value
    raise WireError(f"{_kind(value)} instead of a finite float")


def _decode_bool(value: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    raise WireError(f"{_kind(value)} instead of a bool")


_PLAIN: Final[dict[Any, Decoder]] = {int: _decode_int, float: _decode_float, bool: _decode_bool}


def _kind(value: Any) -> str:
    """A value as an error names it: never its content, which is a peer's and may be long."""
    if type(value) in (int, float):
        return repr(value)
    return "nothing" if value is None else type(value).__name__
