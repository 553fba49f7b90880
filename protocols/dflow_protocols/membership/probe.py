"""Who is probed next, and what has become of the probe under way (SWIM sections 3.1 and 4.3).

A round-robin over a shuffled list bounds the time until each member's next probe. Knows nothing of claims.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ..events import Rng
from ..names import NodeId

INDIRECT: Final = 3  # members asked to probe in our place (SWIM's k)
MAX_RELAYS: Final = 256  # probes made for others at a time
NACK_SHARE: Final = 0.8  # of the asker's patience, after which it is told that the target is silent to us, too


@dataclass(slots=True)
class Probe:
    """One member asked. It ends unanswered at `ends_at`; at `indirect_at` others are asked to try."""

    target: NodeId
    sequence: int
    indirect_at: float
    ends_at: float
    answered: bool = False
    is_extended: bool = False  # once, since this process slept meanwhile
    relays: tuple[NodeId, ...] = ()
    nacks: set[NodeId] = field(default_factory=set)

    @property
    def next_at(self) -> float:
        return self.ends_at if self.answered or self.relays else min(self.indirect_at, self.ends_at)


@dataclass(frozen=True, slots=True)
class Relay:
    """A probe made for another member."""

    asker: NodeId
    asked: int  # the asker's sequence
    target: NodeId
    nack_at: float


class Prober:
    """The order of probes, the one under way, and those made for others."""

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._round: list[NodeId] = []
        self._sequence = rng.randrange(1 << 32)  # so that an answer to an earlier life matches nothing
        self.current: Probe | None = None
        self.relays: dict[int, Relay] = {}

    def next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def next_target(self, candidates: Sequence[NodeId]) -> NodeId | None:
        """The next of this round that is still a candidate; a new round, shuffled again, when it is used up."""
        wanted = frozenset(candidates)
        for _ in range(2):
            while self._round:
                node = self._round.pop()
                if node in wanted:
                    return node
            self._round = self._rng.sample(candidates, len(candidates))
        return None

    def add(self, node: NodeId) -> None:
        """A member joined: somewhere into the current round, so that a wave of joiners is not probed in one order."""
        self._round.insert(self._rng.randrange(len(self._round) + 1), node)

    def take_silent(self, now: float) -> list[tuple[int, Relay]]:
        """Probes for others that were not answered in time."""
        silent = [(sequence, relay) for sequence, relay in self.relays.items() if relay.nack_at <= now]
        for sequence, _ in silent:
            del self.relays[sequence]
        return silent

    @property
    def deadline(self) -> float:
        nacks = min((relay.nack_at for relay in self.relays.values()), default=float("inf"))
        return min(nacks, self.current.next_at) if self.current else nacks
