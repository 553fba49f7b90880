"""Ids in order, changed one at a time and read at nearly every event, be they a thousand."""

from __future__ import annotations

from bisect import bisect_left

from ..names import NodeId


class SortedIds:
    """A set of ids that is read as a sorted tuple; the same tuple until something changes."""

    def __init__(self) -> None:
        self._ids: list[NodeId] = []
        self._read: tuple[NodeId, ...] | None = None  # as last read; none when it has changed since

    def __len__(self) -> int:
        return len(self._ids)

    def keep(self, node: NodeId, is_in: bool) -> None:
        """It is among them from now on, or is not."""
        at = bisect_left(self._ids, node)
        if (self._ids[at : at + 1] == [node]) == is_in:
            return
        self._ids[at : at + (not is_in)] = [node] if is_in else []
        self._read = None

    def read(self) -> tuple[NodeId, ...]:
        if self._read is None:
            self._read = tuple(self._ids)
        return self._read
