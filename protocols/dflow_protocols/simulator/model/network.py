"""The network of a world: drawn delays, loss, one-way cuts. Frames may overtake each other."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from random import Random

from ...names import NodeId

MIN_DELAY_S = 0.0005
MAX_DELAY_S = 0.004
LATE_SHARE = 0.01  # of frames that are held up by MAX_DELAY_S * LATE_FACTOR: a full queue, a lost segment
LATE_FACTOR = 20.0
BYTES_PER_S = 1e9


@dataclass
class Network:
    """Decides each frame's fate. `lose` counts the world's frames from 0; those in it never arrive."""

    rng: Random
    loss: float = 0.0
    lose: frozenset[int] = frozenset()
    cuts: set[tuple[NodeId, NodeId]] = field(default_factory=set)  # (from, to): nothing passes that way
    severed: set[tuple[NodeId, NodeId]] = field(default_factory=set)  # cuts that do not heal
    frames: int = 0

    def fate(self, source: NodeId, to: NodeId) -> float | None:
        """Seconds until a frame sent now arrives, or None if it never does."""
        index, self.frames = self.frames, self.frames + 1
        delay, lost = self.delay(), self.rng.random() < self.loss
        if lost or index in self.lose or self.is_cut(source, to):
            return None
        return delay

    def delay(self) -> float:
        """One way, drawn. Always draws the same number of times, so that a cut shifts no later draw."""
        delay = self.rng.uniform(MIN_DELAY_S, MAX_DELAY_S)
        return delay * LATE_FACTOR if self.rng.random() < LATE_SHARE else delay

    def is_cut(self, source: NodeId, to: NodeId) -> bool:
        return (source, to) in self.cuts or (source, to) in self.severed

    def linked(self, one: NodeId, other: NodeId) -> bool:
        """Whether a request and its answer can pass between the two."""
        return not self.is_cut(one, other) and not self.is_cut(other, one)

    def cut(self, pairs: Collection[tuple[NodeId, NodeId]]) -> None:
        """Nothing passes from the first to the second of each, until it is joined again or all heals."""
        self.cuts.update(pairs)

    def join(self, pairs: Collection[tuple[NodeId, NodeId]]) -> None:
        self.cuts.difference_update(pairs)

    def sever(self, one: NodeId, other: NodeId) -> None:
        """The two never hear each other again."""
        self.severed |= {(one, other), (other, one)}

    def lose_share(self, loss: float) -> None:
        """So many of the frames never arrive, whoever sends them."""
        self.loss = loss

    def heal(self) -> None:
        self.cuts.clear()
        self.loss = 0.0
        self.lose = frozenset()
