"""Messages of the bulk lane: its sessions, agreed on over the control lane, and what travels on the lane itself.

A session lets one node fetch from another. The fetcher makes a token, which opens the holder's socket, and a key,
which seals what is said there; both go to the holder over the control lane, and the holder says when it is ready.
On the lane the fetcher sends lists of asks, and the holder answers each ask in the order in which they came. A message
of answers is a list of them and a payload, in which the chunks that they announce lie one behind the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

import msgpack

from ..names import CHUNK_BYTES, MAX_SHARD_BYTES, NodeId, ShardId
from .fields import WireError

TOKEN_BYTES = 32
KEY_BYTES = 32
HASH_BYTES = 32
NODE_BYTES = 16
MAX_HEAD_BYTES = (2 << 20) + 4096  # the hashes of MAX_CHUNKS, and some small answers
MAX_CHUNKS = 1 << 16  # of a shard: 64 GiB; no peer makes us shift a bitmap by a number of its choosing
MAX_ITEMS = 4096  # asks or answers of one message

assert MAX_CHUNKS * HASH_BYTES < MAX_HEAD_BYTES
assert MAX_CHUNKS * CHUNK_BYTES == MAX_SHARD_BYTES

# Over the control lane ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionOffer:
    """The sender will fetch from the receiver under this token and key. The same token again is the same session."""

    token: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class SessionReady:
    """The sender's bulk lane knows the session of this token: dial it."""

    token: bytes


@dataclass(frozen=True, slots=True)
class SessionGone:
    """The sender's bulk lane was dialled with this token and does not know it, having restarted: offer another."""

    token: bytes


BULK_MESSAGES = (SessionOffer, SessionReady, SessionGone)

# On the bulk lane ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ask:
    """Send chunks [first, end) of a shard, and first, if wanted, the hashes of all its chunks.

    `is_copy`: the sender copies all of it, and serves what it has. It is told who else does. If it asks for no chunk,
    it is told what is here of the shard, now and when it is more.
    """

    ticket: int  # grows with each ask to one holder
    shard: ShardId
    first: int
    end: int
    with_hashes: bool
    is_copy: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """The hashes of all chunks of the ticket's shard."""

    ticket: int
    hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """One chunk, of so many bytes: the next ones of the message's payload."""

    ticket: int
    index: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Lacks:
    """The sender does not have these chunks of the ticket's shard."""

    ticket: int
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Copiers:
    """These nodes copy the shard from the sender, too. Answers no ticket."""

    shard: ShardId
    nodes: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class Has:
    """The chunks of the shard that are at the sender, as a bitmap; None: none, and none will be. Answers no ticket."""

    shard: ShardId
    present: int | None


Answer: TypeAlias = Told | Piece | Lacks | Copiers | Has


class _Kind(IntEnum):
    TOLD = 0
    PIECE = 1
    LACKS = 2
    COPIERS = 3
    HAS = 4


def pack_asks(asks: Sequence[Ask]) -> bytes:
    packed: bytes = msgpack.packb(
        [(ask.ticket, bytes.fromhex(ask.shard), ask.first, ask.end, ask.with_hashes, ask.is_copy) for ask in asks]
    )
    return packed


def unpack_asks(head: bytes | memoryview) -> list[Ask]:
    """Raises WireError for anything that `pack_asks` never wrote."""
    asks = []
    for item in _items(head):
        match item:
            case [
                int() as ticket,
                bytes() as shard,
                int() as first,
                int() as end,
                bool() as hashes,
                bool() as copy,
            ] if len(shard) == HASH_BYTES and ticket >= 0 and 0 <= first <= end <= MAX_CHUNKS:
                asks.append(Ask(ticket, ShardId(shard.hex()), first, end, hashes, copy))
            case _:
                raise WireError("not an ask")
    return asks


def pack_answers(answers: Sequence[Answer]) -> bytes:
    """The chunks of the pieces among them follow, in the same order."""
    packed: bytes = msgpack.packb([_answer_item(answer) for answer in answers])
    return packed


def unpack_answers(head: bytes | memoryview) -> list[Answer]:
    """Raises WireError for anything that `pack_answers` never wrote."""
    return [_read_answer(item) for item in _items(head)]


def _answer_item(answer: Answer) -> tuple[Any, ...]:
    match answer:
        case Told(ticket, hashes):
            return _Kind.TOLD, ticket, b"".join(hashes)
        case Piece(ticket, index, nbytes):
            return _Kind.PIECE, ticket, index, nbytes
        case Lacks(ticket, first, end):
            return _Kind.LACKS, ticket, first, end
        case Copiers(shard, nodes):
            return _Kind.COPIERS, bytes.fromhex(shard), b"".join(map(bytes.fromhex, nodes))
        case Has(shard, present):
            packed = None if present is None else present.to_bytes(-(-present.bit_length() // 8), "little")
            return _Kind.HAS, bytes.fromhex(shard), packed


def _read_answer(item: Any) -> Answer:
    match item:
        case [_Kind.PIECE, int() as ticket, int() as index, int() as nbytes] if (
            0 <= index < MAX_CHUNKS and 0 <= nbytes <= CHUNK_BYTES
        ):
            return Piece(ticket, index, nbytes)
        case [_Kind.TOLD, int() as ticket, bytes() as joined] if len(joined) % HASH_BYTES == 0:
            return Told(ticket, tuple(joined[at : at + HASH_BYTES] for at in range(0, len(joined), HASH_BYTES)))
        case [_Kind.LACKS, int() as ticket, int() as first, int() as end] if 0 <= first <= end <= MAX_CHUNKS:
            return Lacks(ticket, first, end)
        case [_Kind.COPIERS, bytes() as shard, bytes() as joined] if (
            len(shard) == HASH_BYTES and len(joined) % NODE_BYTES == 0
        ):
            nodes = (joined[at : at + NODE_BYTES].hex() for at in range(0, len(joined), NODE_BYTES))
            return Copiers(ShardId(shard.hex()), tuple(map(NodeId, nodes)))
        case [_Kind.HAS, bytes() as shard, None] if len(shard) == HASH_BYTES:
            return Has(ShardId(shard.hex()), None)
        case [_Kind.HAS, bytes() as shard, bytes() as present] if (
            len(shard) == HASH_BYTES and len(present) <= MAX_CHUNKS // 8
        ):
            return Has(ShardId(shard.hex()), int.from_bytes(present, "little"))
        case _:
            raise WireError("not an answer")


def _items(head: bytes | memoryview) -> list[Any]:
    if len(head) > MAX_HEAD_BYTES:
        raise WireError(f"a head of {len(head)} bytes")
    try:
        items = msgpack.unpackb(head, max_array_len=MAX_ITEMS, max_map_len=0, max_ext_len=0, max_str_len=0)
    except (ValueError, msgpack.UnpackException) as error:
        raise WireError(f"not msgpack: {error or type(error).__name__}") from None
    if not isinstance(items, list):
        raise WireError("not a list")
    return items
