"""What messages say of a node's books of a step, beside its records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..names import NodeId, ShardId, TaskKey

MOST_SHORT_BYTES: Final = 1 << 14  # of a partition's outputs that go along with their records: a millisecond of a slow
# link, where to ask for them costs both ends that much of a processor
MOST_SHORT: Final = 64  # of them: a chain of ten stages has thirty


@dataclass(frozen=True, slots=True)
class TaskClaim:
    """`node` is running `unit` (the task key of the first stage it still has to do), or brings what it reads."""

    unit: TaskKey
    node: NodeId


@dataclass(frozen=True, slots=True)
class Holding:
    """`nodes` hold the shards at these places among those that a seal names (`Seal.shards`)."""

    places: tuple[int, ...]
    nodes: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """The records [first, end) of a node's books of a step, in the order in which they came to be there. `books`: which
    of its books; it begins new ones in each life, and when it has dropped those of the step meanwhile."""

    books: str
    first: int
    end: int


def outputs_fault(outputs: Sequence[tuple[ShardId, bytes]]) -> str:
    """What is wrong with outputs that come along with their records, in words; empty if nothing is."""
    if len(outputs) > MOST_SHORT:
        return f"{len(outputs)} outputs, more than {MOST_SHORT}"
    nbytes = sum(len(data) for _, data in outputs)
    return f"{nbytes} bytes together, more than {MOST_SHORT_BYTES}" if nbytes > MOST_SHORT_BYTES else ""
