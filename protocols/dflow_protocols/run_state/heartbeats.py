"""Heartbeats by difference: what of a node's own each member lacks, and what of each member's is known here.

Scuttlebutt reconciliation (van Renesse, Dumitriu, Gough and Thomas 2008): a node numbers the changes of what it says of
itself, and each frame carries what changed after the mark that its receiver acknowledged. Frames may be lost and
overtake each other, so a change is told with every frame until it is acknowledged. What a node forgets of others it
acknowledges no more. Knows nothing of what heartbeats say.
"""

from __future__ import annotations

from collections.abc import Collection

from ..names import NodeId, RunId
from ..wire.heartbeat import Delta, Heartbeat, Mark


class Heartbeats:
    """One node's."""

    def __init__(self) -> None:
        self._mark = Mark(0, 0)
        self._mine: dict[RunId, tuple[int, Heartbeat]] = {}  # with the number of its last change
        self._since: dict[int, tuple[Heartbeat, ...]] = {}  # what changed after a number, as told to someone just now
        self._known_to: dict[NodeId, Mark] = {}  # what of this node's each member has, by its newest word
        self._newest: dict[NodeId, Mark] = {}  # of what each member said
        self._complete: dict[NodeId, Mark] = {}  # up to where all of that is known here

    # This node's own ------------------------------------------------------------------------------------------------

    def publish(self, incarnation: int, heartbeats: Collection[Heartbeat]) -> None:
        """This is where this node is in its runs from now on."""
        if not heartbeats and not self._mine and incarnation == self._mark.incarnation:
            return  # as in a mesh without a run
        number = self._mark.number + 1
        said = {each.run: each for each in heartbeats}
        changed = {run: (number, each) for run, each in said.items() if self._mine.get(run, (0, None))[1] != each}
        self._mine = {run: changed.get(run) or self._mine[run] for run in said}
        self._mark = Mark(incarnation, number if changed else number - 1)
        self._since.clear()

    def delta(self, to: NodeId) -> Delta:
        """What a frame to this member carries."""
        known, since = self._known_to.get(to), 0
        if known is not None and known.incarnation == self._mark.incarnation and known.number <= self._mark.number:
            since = known.number
        if since not in self._since:
            self._since[since] = tuple(each for changed, each in self._mine.values() if changed > since)
        return Delta(self._mark, since, self._complete.get(to), self._since[since])

    # Others' --------------------------------------------------------------------------------------------------------

    def take(self, source: NodeId, delta: Delta) -> tuple[Heartbeat, ...]:
        """A member's frame came. Gives what is to be taken of it: nothing, where newer word came before."""
        if delta.acknowledged is None:
            self._known_to.pop(source, None)
        else:
            self._known_to[source] = delta.acknowledged
        if delta.mark < self._newest.get(source, delta.mark):
            return ()
        self._newest[source] = delta.mark
        return delta.heartbeats

    def taken(self, source: NodeId, delta: Delta) -> None:
        """All of that was taken: it is acknowledged, unless something before it is missing."""
        known = self._complete.get(source)
        number = known.number if known is not None and known.incarnation == delta.mark.incarnation else 0
        if delta.since <= number and self._newest.get(source) == delta.mark:
            self._complete[source] = delta.mark

    def forget(self, node: NodeId) -> None:
        """It is gone, or lives a new life: what it said, and what others said of it, counts no more."""
        self._known_to.pop(node, None)
        self._newest.pop(node, None)
        self.acknowledge_nothing()

    def acknowledge_nothing(self) -> None:
        """Something of what others said was forgotten here: all say it again."""
        self._complete.clear()
