"""Vouched: for which records of a step each member vouches, kept at one node as books and holders change.

A member vouches for a record that it says to have made, while it holds all that the record names. Digests of that are
compared twice in a suspicion time; so it is derived again only of records that came, or whose holders are others now.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from ..journal import UNREAD
from ..names import NodeId, RecordId
from ..shards.holdings import Holdings
from ..steps.step import Step
from ..wire.steps import Record


@dataclass(slots=True)
class _Kept:
    """Of one member. `said`: the table of what it says to have made, which grows; the rest is how that was read."""

    said: Collection[RecordId]
    forgotten: int
    count: int = 0
    read: tuple[int, int] = (UNREAD, UNREAD)  # of the books, of the holders
    ids: set[RecordId] = field(default_factory=set)


class Vouched:
    """See the module."""

    def __init__(self, step: Step, holdings: Holdings) -> None:
        self.step = step
        self._holdings = holdings
        self._kept: dict[NodeId, _Kept] = {}

    def by(self, node: NodeId) -> Collection[RecordId]:
        """The records that a member vouches for, or this node itself."""
        step = self.step
        said = step.mine if node == self._holdings.me else step.said_own.get(node)
        if said is None:
            self._kept.pop(node, None)
            return ()
        kept = self._kept.get(node)
        if kept is None or kept.said is not said or kept.forgotten != step.forgotten:
            kept = self._kept[node] = _Kept(said, step.forgotten)
        for name in self._changed(kept):
            if name in said and (record := step.by_id.get(name)) is not None and self._holds(node, record):
                kept.ids.add(name)
            else:
                kept.ids.discard(name)
        kept.count, kept.read = len(said), (step.changed.end, self._holdings.changed.end)
        return kept.ids

    def _changed(self, kept: _Kept) -> set[RecordId]:
        """The records that may be vouched for now and were not, or the other way round."""
        step = self.step
        parts, shards = step.changed.since(kept.read[0]), self._holdings.changed.since(kept.read[1])
        if parts is None or shards is None:
            return kept.ids.union(kept.said)
        found = {name for part in parts for name in step.by_part.get(part, ())}
        found.update(name for shard in shards for name in step.named_by.get(shard, ()))
        if len(kept.said) != kept.count:
            found.update(name for name in kept.said if name not in kept.ids)
        return found

    def _holds(self, node: NodeId, record: Record) -> bool:
        holdings = self._holdings
        if node == holdings.me:
            return all(ref.id in holdings.local for ref in record.shards)
        return holdings.has_said(node, [ref.id for ref in record.shards])
