"""Ids in order, changed one at a time and read at nearly every event, be they a thousand."""

from __future__ import annotations

from bisect import bisect_left

from ..names import NodeId


class SortedIds:
    """A set of ids that is read as a sorted tuple; the same tuple until something changes."""

    def __init__(self) -> None:
        self._ids: list[NodeId] = []
        self._in: set[NodeId] = set()
        self._read: tuple[NodeId, ...] | None = None  # as last read; none when it has changed since

    def __len__(self) -> int:
        return len(self._ids)

    def keep(self, node: NodeId, is_in: bool) -> None:
        """It is among them from now on, or is not."""
        if (node in self._in) == is_in:
            return
        at = bisect_left(self._ids, node)
        if is_in:
            self._ids.insert(at, node)
            self._in.add(node)
        else:
            del self._ids[at]
            self._in.discard(node)
        self._read = None

    def read(self) -> tuple[NodeId, ...]:
        if self._read is None:
            self._read = tuple(self._ids)
        return self._read
