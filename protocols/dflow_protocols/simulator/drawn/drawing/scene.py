"""A world that trouble lies ahead of, as far as drawing knows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TypeAlias

from ...faults import Fault
from ...world import World


@dataclass
class Scene:
    """`trouble_s`: faults fall within so long. `submitter`: the node that the run is submitted to, and that may alone
    know of it for a while. `dead`: who is for good, and comes to be. `breaks`: works that are to fail; few, since many
    rightly end a run."""

    world: World
    trouble_s: float
    submitter: int
    dead: set[int] = field(default_factory=set)
    breaks: int = 0

    @property
    def count(self) -> int:
        """Machines, those that are still to join among them."""
        return len(self.world.hosts)

    def stream(self, what: str) -> Random:
        """A source of chance of its own: what is drawn there shifts no other draw."""
        return Random(f"swarm/{self.world.seed}/{what}")

    def may_die(self, node: int) -> bool:
        """Whether it may be dead for good: somebody who knows of the run has to stay."""
        return node != self.submitter and len(self.dead) + 1 < self.count

    def bury(self, node: int) -> None:
        self.dead.add(node)

    def keep_all(self) -> None:
        """Nobody more dies for good."""
        self.dead.update(range(self.count))

    def count_breaks(self, works: int) -> None:
        """So many more are to fail."""
        self.breaks += works

    def another(self, rng: Random, node: int) -> int:
        """Any machine but this one, of which there are at least two."""
        return (node + 1 + rng.randrange(self.count - 1)) % self.count

    def some(self, rng: Random) -> tuple[int, ...]:
        """Some machines, but not all, of which there are at least two."""
        return tuple(rng.sample(range(self.count), rng.randint(1, self.count - 1)))

    def plan(self, after_s: float, fault: Fault) -> None:
        self.world.at(self.world.now + after_s, fault)


Drawer: TypeAlias = Callable[[Random, Scene, int], Fault | None]
"""Draws one fault of a kind, of this machine where it is of one; None where there can be none in this scene."""
