"""What messages say of a node's books of a step, beside its records."""

from __future__ import annotations

from dataclasses import dataclass

from ..names import NodeId, TaskKey


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
