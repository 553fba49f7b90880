"""Names: ids that follow from content, so that two nodes that never spoke call one thing by one name.

Owns how ids are made. Knows nothing of what they name. Every id is lower-case hexadecimal text: 32 digits for nodes
and runs (who), 64 for content (what).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, NewType, TypeAlias

import msgpack
from blake3 import blake3

NodeId = NewType("NodeId", str)  # hash of a CURVE public key
RunId = NewType("RunId", str)  # hash of (spec, submitter, nonce)
SpecId = NewType("SpecId", str)  # hash of the canonical pipeline
ShardId = NewType("ShardId", str)  # root over the hashes of a shard's chunks
RecordId = NewType("RecordId", str)
SealId = NewType("SealId", str)
VersionId = NewType("VersionId", str)

SealKind: TypeAlias = Literal["manifest", "update"]
MANY_KEYS: Final = 4_096  # whose ids are kept at hand: those of a large mesh are asked for again and again
MANIFEST: Final = "manifest"  # fixes the records that training reads
UPDATE: Final = "update"  # fixes the reduced slices, and ends the step

CHUNK_BYTES = 1 << 20  # unit of transfer and of verification; slices of a gradient are whole chunks
MAX_SHARD_BYTES = 1 << 36  # no peer makes us reckon with a bitmap of a length of its choosing

_HEX = re.compile(r"[0-9a-f]+")


def is_who(text: str) -> bool:
    """Whether `text` has the form of a node or run id."""
    return len(text) == 32 and _HEX.fullmatch(text) is not None


def is_what(text: str) -> bool:
    """Whether `text` has the form of a content id."""
    return len(text) == 64 and _HEX.fullmatch(text) is not None


def content_id(kind: str, value: Any) -> str:
    """64 hex digits naming `value` (None, bool, int, float, str, bytes and lists or tuples of them) as a `kind`."""
    return blake3(msgpack.packb([kind, value], use_bin_type=True)).hexdigest()


@lru_cache(maxsize=MANY_KEYS)
def node_id(public_key: bytes) -> NodeId:
    """Id of the node that owns a CURVE key. `public_key`: the 32 raw bytes."""
    return NodeId(blake3(b"dflowd.node\0" + public_key).hexdigest()[:32])


def run_id(pipeline: str, submitter: str, nonce: str) -> RunId:
    """`pipeline`: hash of its whole canonical form."""
    return RunId(content_id("run", [pipeline, submitter, nonce])[:32])


def chunk_hash(chunk: bytes | memoryview) -> bytes:
    """32 bytes: BLAKE3 of one chunk of at most CHUNK_BYTES."""
    return blake3(chunk).digest()


def shard_id(nbytes: int, chunk_hashes: Iterable[bytes]) -> ShardId:
    """The root of a tree of depth two: the length, then every chunk's hash in order.

    Who holds the list of hashes (32 bytes a MiB) and checks it against the id can check any chunk as it arrives.
    """
    root = blake3(b"dflowd.shard\0" + nbytes.to_bytes(8, "little"))
    for piece in chunk_hashes:
        root.update(piece)
    return ShardId(root.hexdigest())


EMPTY_SHARD: Final = shard_id(0, ())  # of all that claim no bytes the one that may: there is nothing to check others by


def hash_shard(buffer: bytes | memoryview) -> tuple[ShardId, tuple[bytes, ...]]:
    """Id and chunk hashes of a whole shard in memory."""
    view = memoryview(buffer).cast("B")
    hashes = tuple(chunk_hash(view[at : at + CHUNK_BYTES]) for at in range(0, len(view), CHUNK_BYTES))
    return shard_id(len(view), hashes), hashes


def chunk_count(nbytes: int) -> int:
    return -(-nbytes // CHUNK_BYTES)


@dataclass(frozen=True, slots=True, order=True)
class ShardRef:
    """A shard as others speak of it: its id and its length in bytes."""

    id: ShardId
    nbytes: int


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition of a stage's prompts; in texts `p7`."""

    index: int

    def __str__(self) -> str:
        return f"p{self.index}"


@dataclass(frozen=True, slots=True)
class Block:
    """The leaves [first, end), whose gradients are summed; in texts `b2-4`."""

    first: int
    end: int

    @staticmethod
    def of_leaf(leaf: int) -> Block:
        return Block(leaf, leaf + 1)

    @property
    def leaves(self) -> range:
        return range(self.first, self.end)

    def is_inside(self, other: Block) -> bool:
        """Whether this is a part of `other`, and not all of it."""
        return self != other and other.first <= self.first and self.end <= other.end

    def __str__(self) -> str:
        return f"b{self.first}-{self.end}"


@dataclass(frozen=True, slots=True)
class Slice:
    """The chunks [first, end) of a gradient, over all leaves; in texts `s0-3`."""

    first: int
    end: int

    def __str__(self) -> str:
        return f"s{self.first}-{self.end}"


@dataclass(frozen=True, slots=True)
class Once:
    """What is no share but the whole: a node does it for itself. In texts its word: `apply`, `init`, `load`, `save`."""

    word: str

    def __str__(self) -> str:
        return self.word


Part: TypeAlias = Partition | Block | Slice | Once
"""Which share of a stage a task is. Everywhere a text is wanted (wire, ids, reports) it is `str(part)`."""

MAX_SHARE: Final = 20  # characters of a share's text
_NUMBER = r"(0|[1-9]\d{0,8})"
_SHARE = re.compile(rf"p{_NUMBER}|([bs]){_NUMBER}-{_NUMBER}", re.ASCII)


def part_of(text: str) -> Part:
    """The part whose text this is. What names no share is a word, whether or not any task is called so, so that
    `str(part_of(text)) == text` holds for every text."""
    return _part_of(text) if len(text) <= MAX_SHARE else Once(text)


@lru_cache(maxsize=MANY_KEYS)
def _part_of(text: str) -> Part:
    found = _SHARE.fullmatch(text)
    if found is None:
        return Once(text)
    if found[2] is None:
        return Partition(int(found[1]))
    first, end = int(found[3]), int(found[4])
    if first >= end:
        return Once(text)
    return Block(first, end) if found[2] == "b" else Slice(first, end)


@dataclass(frozen=True, slots=True)
class TaskKey:
    """A task of a run: what `plan()` derives on every node alike. Keys sort as their texts do, p10 before p2."""

    step: int
    stage: str
    part: Part

    def __lt__(self, other: TaskKey) -> bool:
        return (self.step, self.stage, str(self.part)) < (other.step, other.stage, str(other.part))

    @property
    def leaves(self) -> range:
        """Of a block its leaves, of anything else none."""
        return self.part.leaves if isinstance(self.part, Block) else range(0)

    @property
    def singles(self) -> list[TaskKey]:
        """A block's leaves as tasks of their own; anything else as it is."""
        return [TaskKey(self.step, self.stage, Block.of_leaf(leaf)) for leaf in self.leaves] or [self]

    def holds(self, single: TaskKey) -> bool:
        """Whether `single` is this task, or one leaf of this block."""
        if self == single:
            return True
        same = (self.step, self.stage) == (single.step, single.stage)
        return same and bool(single.leaves) and single.leaves[0] in self.leaves

    def __str__(self) -> str:
        return f"{self.step}/{self.stage}/{self.part}"


Coefficients: TypeAlias = tuple[tuple[str, float], ...]
"""By stage: a weight of a pipeline that follows what was measured, as a version has it; stages sorted."""


def version_id(
    seal: SealId | SpecId, state: Iterable[tuple[str, ShardRef]], coefficients: Coefficients = ()
) -> VersionId:
    """Id of the weights made by applying the step's last update seal: two states never share one."""
    fields: list[Any] = [seal, [[name, ref.id] for name, ref in state]]
    return VersionId(content_id("version", [*fields, coefficients] if coefficients else fields))
