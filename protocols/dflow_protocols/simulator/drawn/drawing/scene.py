"""A world that trouble lies ahead of, as far as drawing knows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TypeAlias

from ...faults import At, Fault, Join, Moment, Planned, When
from ...world import World

EVENT_SHARE = 0.5  # of worlds, in which faults strike at an action of a node in place of a time
FIRST_S = 0.3  # after the submit: nothing strikes before the run is known
TIMES: Mapping[str, int] = {
    "send claim_put": 100,
    "send record_put": 140,
    "send seal_put": 28,
    "send seal_ack": 14,
    "send header_put": 2,
    "send checkpoint_put": 15,
    "send run_put": 8,
    "send steal_grant": 2,
    "start chain_work": 20,
    "start block_work": 9,
    "start sum_work": 2,
    "start slice_work": 9,
    "start apply_work": 9,
    "start save_work": 2,
    "settle": 14,
    "persist": 9,
    "fetch": 70,
    "advance": 12,
}
"""Events, and how often each happens in an undisturbed run of three nodes."""


@dataclass
class Scene:
    """`trouble_s`: faults fall within so long. `submitter`: the node that the run is submitted to, and that may alone
    know of it for a while. `skips`: its run leaves out what is at fault. `dead`: who is for good, and comes to be.
    `breaks`: works that are to fail; few, since many rightly end a run."""

    world: World
    trouble_s: float
    submitter: int
    skips: bool = False
    dead: set[int] = field(default_factory=set)
    breaks: int = 0
    planned: list[Planned] = field(default_factory=list)  # in the order in which it was drawn

    def __post_init__(self) -> None:
        self._moments = self.stream("moments")
        self._strikes_at_events = bool(self.world.runs) and self._moments.random() < EVENT_SHARE

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
        """It strikes so much later."""
        self.planned.append((At(self.world.now + after_s), fault))

    def plan_some_time(self, rng: Random, fault: Fault, first_s: float = FIRST_S) -> None:
        """It strikes while there is trouble: at a time, or in a part of the worlds at an action of a node."""
        moment: Moment = At(self.world.now + rng.uniform(first_s, self.trouble_s))
        if self._strikes_at_events:
            moment = self._draw_event(fault)
        self.planned.append((moment, fault))

    def _draw_event(self, fault: Fault) -> When:
        """An action of any node, or of the one that the fault is of."""
        event = self._moments.choice(sorted(TIMES))
        node = None if isinstance(fault, Join) else getattr(fault, "node", None)
        if node is None or self._moments.random() < 0.5:
            return When(event, self._moments.randrange(TIMES[event]))
        return When(event, self._moments.randrange(max(1, TIMES[event] // self.count)), node)


Drawer: TypeAlias = Callable[[Random, Scene, int], Fault | None]
"""Draws one fault of a kind, of this machine where it is of one; None where there can be none in this scene."""
