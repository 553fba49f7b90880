"""What every checker has: the world that it watches, and what it sees of a node's own books."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf
from typing import Any, TypeAlias, cast

from ...events import Start
from ...names import NodeId, RunId, TaskKey
from ...node import Node
from ...pipeline.spec import Pipeline
from ...run_state.run_state import RunState
from ...work import ChainWork
from ..invariants import Violation
from ..model.host import Host
from ..toy import TOY_PARTITIONS
from ..world import World

Seen: TypeAlias = Mapping[type | str, Callable[[Host, Any], None]]
"""By kind of action or event; a report's is its name."""
ROOMY = 0.75  # of its room is the most that a store ever held that never had to refuse
QUIET_S = 6.0  # longer than a sealer waits for second holders, and than a save that failed waits


class Steady:
    """Since when the mesh is whole and well and all its nodes agree on who lives: however they got there, from then on
    they do the same at once. A life that begins is news to all, however soon they agree on it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._since = inf
        self._lives = 0

    @property
    def seconds(self) -> float:
        """For how long that has been so; negative if it is not."""
        return self._world.now - self._since

    def inspect(self) -> None:
        world, lives = self._world, sum(host.lives for host in self._world.hosts)
        has_begun, self._lives = lives > self._lives, lives
        if has_begun or not (
            world.live() and is_whole(world) and all(is_at_ease(host) for host in world.live()) and is_agreed(world)
        ):
            self._since = inf
        elif self._since == inf:
            self._since = world.now


class Checker:
    """One world's. Where a rule gives in after a wait, it is held to only while all is well, and nothing struck for so
    long that the wait is over."""

    def __init__(self, world: World, steady: Steady) -> None:
        self.world = world
        self.steady = steady

    @property
    def sees(self) -> Seen:
        """Actions that it looks at once they are performed."""
        return {}

    @property
    def hears(self) -> Seen:
        """Events that it looks at before a node takes them."""
        return {}

    def inspect(self) -> None:
        """Again and again, as time passes."""

    def dies(self, host: Host) -> None:
        """A node's process is about to end, with all that is in its memory."""

    def end(self) -> None:
        """The world has ended well so far."""

    def broken(self, what: str, invariant: str) -> Violation:
        return self.world.violation(what, invariant)

    # How the world is -----------------------------------------------------------------------------------------------

    def is_quiet(self, seconds: float = QUIET_S) -> bool:
        """Whether all machines are well and all links whole, and nothing struck for so long."""
        world = self.world
        is_over = not world.struck or world.now - world.disturbed_until > seconds
        return is_over and is_whole(world) and all(is_well(host) for host in world.hosts)


def is_whole(world: World) -> bool:
    """Whether all links carry all that is sent, once and at once."""
    return world.network.is_whole


def is_agreed(world: World) -> bool:
    """Whether somebody lives, and all that do answer, and know each other, and nobody else, as alive."""
    live = world.live()
    living = tuple(sorted({host.id for host in live}))
    return bool(live) and len(living) == len(live) and all(host.answers and _finds(host, living) for host in live)


def _finds(host: Host, living: tuple[NodeId, ...]) -> bool:
    """Whether it takes just these, which are sorted, for living; a thousand nodes are asked ten times a second."""
    membership = node_of(host).membership
    if membership.reach.unreached:
        return living_at(host) == frozenset(living)
    return membership.alive() == living


def is_well(host: Host) -> bool:
    is_at_work = not (host.paused or host.comes_back or host.is_drained or host.is_late or host.disk.is_full)
    return is_at_work and not host.health.handicaps and host.store.most_bytes is None


def is_at_ease(host: Host) -> bool:
    """It works like any other, and never was short of room."""
    store = host.store
    is_roomy = store.limit_bytes is None or store.peak_bytes < ROOMY * store.limit_bytes
    has_room = is_roomy and store.filled_bytes is None and not store.refusals
    return has_room and not (host.is_drained or host.health.handicaps or host.is_late or host.disk.is_full)


def is_small(pipeline: Pipeline) -> bool:
    """Whether a step of it is no larger than that of most."""
    return max(int(stage.config.get("partitions", 1)) for stage in pipeline.stages) <= TOY_PARTITIONS


def node_of(host: Host) -> Node:
    return cast(Node, host.machine)


def state_of(host: Host, run: RunId) -> RunState | None:
    """A run's state at a node that lives; None where it does not know the run."""
    if host.process is None:
        return None
    known = node_of(host).runs.get(run)
    return None if known is None else known.state


def done_by(start: Start) -> TaskKey:
    """What a call does: where a partition takes several calls, each has stages of its own, and the first names it."""
    return replace(start.task, stage=start.work.stages[0]) if isinstance(start.work, ChainWork) else start.task


def living_at(host: Host) -> frozenset[NodeId]:
    """As the node itself sees it."""
    membership = node_of(host).membership
    return frozenset(membership.alive()) - (membership.reach.unreached.keys() - membership.routes.keys())


def on_duty_at(host: Host) -> frozenset[NodeId]:
    return living_at(host) - node_of(host).membership.drained()


def others_claim(state: RunState, unit: TaskKey) -> bool:
    """Whether another node does, or did until its lease ended."""
    return any(node != state.me for node in state.step(unit.step).claimants(0.0, unit))
