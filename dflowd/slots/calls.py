"""What a daemon asks of an engine child, and what the child answers: msgpack frames over ipc://, one a message and as
many in a batch as there are.

The daemon's end is a ROUTER, the child's a DEALER. A child works on one call at a time, or on several partitions of one
run. It has more in hand, which it does one after the other, so that it need not wait for the daemon between two of
them: the next partition where it is the host's only slot, and several where they are short. What has not begun is given
up at once; what is said of a call that is over waits a moment for the next end. Each message names its call:

    child   Ready                                          once, after its self-test
    daemon  Call             child  Beat ...               every BEAT_S of each call, from a thread of its own
                             child  Reached                a block is at this leaf
    daemon  Trim                                           a block shall end earlier; answered by its Finished
                             child  Grant   -> Granted | Refused, where the room that came with the call does not do
                             child  Sealed                 outputs lie hashed in the segments
                             child  Finished | Broke       the end of the call
    daemon  GiveUp                                         the child ends the call soon, and still answers it; at
                                                           once where it has not begun
    daemon  Quit                                           the child exits

Light: imported by the daemon, so no numpy and no torch here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from operator import attrgetter
from typing import Any, TypeAlias

import msgpack

from dflow_protocols.events import Broke, Finished, Reached
from dflow_protocols.names import Block, ShardId, ShardRef
from dflow_protocols.wire.steps import Header
from dflow_protocols.work import (
    ApplyWork,
    BlockWork,
    ChainWork,
    Done,
    Failed,
    InitWork,
    LeafGroups,
    LoadWork,
    Made,
    SaveWork,
    SliceWork,
    SumWork,
    Work,
)

BEAT_S = 0.5  # a child that beats not for ten of these is dead or starved beyond use
HOLD_S = 0.005  # that the end of a call waits at most for others to be told with it, while more calls are in hand


@dataclass(frozen=True, slots=True)
class Input:
    """A shard in the daemon's store, whole or in part, to be mapped read-only."""

    id: ShardId
    nbytes: int
    path: str  # /proc/PID/fd/N of the daemon; the file is `nbytes` long even where chunks are missing
    first: int  # chunks [first, end) are there
    end: int
    hashes: tuple[bytes, ...] = ()  # BLAKE3 of all its chunks if they lie on disk: what is read there is checked again


@dataclass(frozen=True, slots=True)
class GrantedSegment:
    """Room for one output: the first `nbytes` of the file at `path`, writable."""

    id: int
    nbytes: int
    path: str


@dataclass(frozen=True, slots=True)
class Call:
    """Do `work`. Complete in itself, so that a restarted child needs nothing that was sent before."""

    id: int
    spec: bytes  # the pipeline's canonical form
    base: str  # folder that relative paths of the spec start from
    code: str  # folder that users' functions are loaded from
    folder: str  # where checkpoints of the run go
    work: Work
    inputs: tuple[Input, ...]
    room: tuple[GrantedSegment, ...] = ()  # for its outputs, if they are about as long as those of the call before


@dataclass(frozen=True, slots=True)
class Granted:
    """Answer to Grant: one segment a size asked for, in order."""

    call: int
    segments: tuple[GrantedSegment, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """Answer to Grant: there is no room. The child answers the call with Broke of kind `full`, or `large` where there
    would be none even if nothing else were here."""

    call: int
    error: str
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nobody waits for this call any more."""

    call: int


@dataclass(frozen=True, slots=True)
class Trim:
    """The call is for a block of leaves, and those from `end` on are somebody else's now."""

    call: int
    end: int


@dataclass(frozen=True, slots=True)
class Quit:
    """Exit."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The child is up and has tested itself."""

    pid: int
    capabilities: tuple[str, ...]  # such as `torch`, `cpu`, `cuda`
    numerics: str  # engines with the same text make the same bytes of the same work


@dataclass(frozen=True, slots=True)
class Beat:
    """The process lives. A hung call is one whose `progress` stays the same; that of one that waits for the baton grows
    with that of the call which has it."""

    call: int  # 0 where there is none
    progress: int  # grows with each pass, sample, chunk done, and while a library computes


@dataclass(frozen=True, slots=True)
class Grant:
    """Room is needed for outputs of these lengths in bytes. At most one of a call is open at a time."""

    call: int
    sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SealedShard:
    """An output lies finished in its segment."""

    segment: int
    id: ShardId
    nbytes: int
    hashes: tuple[bytes, ...]  # BLAKE3 of each chunk


@dataclass(frozen=True, slots=True)
class Sealed:
    """Sent before the Finished that names these shards."""

    call: int
    shards: tuple[SealedShard, ...]


ToChild: TypeAlias = Call | Granted | Refused | GiveUp | Trim | Quit
FromChild: TypeAlias = Ready | Beat | Reached | Grant | Sealed | Finished | Broke

# A class's place in this table is its number in the frame. Both ends come from one installation.
_CLASSES: tuple[type, ...] = (
    ShardRef,
    Block,
    ChainWork,
    LeafGroups,
    BlockWork,
    SumWork,
    SliceWork,
    ApplyWork,
    InitWork,
    Header,
    SaveWork,
    LoadWork,
    Made,
    Done,
    Failed,
    Input,
    Call,
    GrantedSegment,
    Granted,
    Refused,
    GiveUp,
    Trim,
    Quit,
    Ready,
    Beat,
    Grant,
    SealedShard,
    Sealed,
    Reached,
    Finished,
    Broke,
)
_NUMBERS = {cls: number for number, cls in enumerate(_CLASSES)}


def _values_of(cls: type) -> Callable[[Any], tuple[Any, ...]]:
    """What gives an object's fields, in order."""
    names = [field.name for field in fields(cls)]
    get = attrgetter(*names) if names else lambda value: ()
    return get if len(names) != 1 else lambda value: (get(value),)


_VALUES = {cls: _values_of(cls) for cls in _CLASSES}


def encode(message: ToChild | FromChild) -> bytes:
    return bytes(msgpack.packb(message, default=_pack, use_bin_type=True))


def decode(frame: bytes) -> Any:
    """A message of ToChild or FromChild.

    Raises ValueError for bytes that are none; what a child sends is never trusted to be well made.
    """
    try:
        message = msgpack.unpackb(frame, ext_hook=_unpack, use_list=False, raw=False)
    except (msgpack.UnpackException, ValueError, TypeError, IndexError) as error:
        raise ValueError(f"not a message of an engine child: {error}") from error
    if not is_dataclass(message):
        raise ValueError("not a message of an engine child")
    return message


def _pack(value: Any) -> msgpack.ExtType:
    cls = type(value)
    if cls not in _NUMBERS:
        raise TypeError(f"cannot send a {cls.__name__}")
    return msgpack.ExtType(_NUMBERS[cls], msgpack.packb(_VALUES[cls](value), default=_pack, use_bin_type=True))


def _unpack(number: int, body: bytes) -> Any:
    return _CLASSES[number](*msgpack.unpackb(body, ext_hook=_unpack, use_list=False, raw=False))
