"""Duplicate identity: two live processes under one key. Who proves it, and which of the two yields.

A copied state directory or key file makes them. What others tell is no proof: a member that lies could silence another
by it. So who hears of a life of its own that it does not remember dials that life under its own key; only a process
that has the secret key can answer there. Of the two, the one that started later falls silent.
"""

from __future__ import annotations

from ..events import Send
from ..names import NodeId
from ..wire.gossip import Meta, MetaGet, MetaId, Update
from .table import Actions


class Duplicate:
    """What is known of another process with this node's key."""

    def __init__(self, mine: Meta) -> None:
        self._mine = mine
        self._wanted: MetaId | None = None
        self._again_at = float("-inf")

    def ask_about(self, now: float, source: NodeId, claim: Update, pause_s: float, out: Actions) -> None:
        """`source` tells of a life of this node that is not this one: ask what it is, at most once in `pause_s`."""
        if claim.meta != self._mine.id and now >= self._again_at:
            self._again_at = now + pause_s
            self._wanted = claim.meta
            out.append(Send(source, MetaGet((claim.meta,))))

    def learn(self, meta: Meta) -> bool:
        """What that life is. Whether to dial it: at the own address only this node is."""
        if self._wanted is None or meta.id != self._wanted:
            return False
        self._wanted = None
        return meta.public_key == self._mine.public_key and meta.control != self._mine.control

    def is_other(self, meta: Meta) -> bool:
        """Whether somebody who spoke under this node's key is another process, and not an echo."""
        return meta.public_key == self._mine.public_key and meta.id != self._mine.id

    def yields_to(self, other: Meta) -> bool:
        """Whether this process started later. Clocks may differ between hosts; both judge alike all the same."""
        return (other.born_ms, other.id) < (self._mine.born_ms, self._mine.id)
