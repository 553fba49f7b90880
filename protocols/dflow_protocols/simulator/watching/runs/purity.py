"""Where the same work gives the same bytes, every version is the one that a node alone makes, undisturbed."""

from __future__ import annotations

from functools import cache

from ....events import Action, Advanced, Event
from ....pipeline.spec import Pipeline
from ....ranges import State
from ...model.host import Host
from ...mutations.mutation import whole
from ...spawn import spawn
from ...world import World
from ..checker import Checker, Seen, node_of

ENDS_S = 120.0  # virtual seconds that a run takes at most which nothing disturbs


class Purity(Checker):
    """`pure`."""

    @property
    def sees(self) -> Seen:
        return {Advanced: self._advanced}

    def _advanced(self, host: Host, action: Advanced) -> None:
        engines, own = self.world.engines[action.run], node_of(host).runs[action.run].state.versions.own
        if own is None or own.id != action.head.version or not engines.is_pure or engines.pipeline.on_poison == "skip":
            return
        due = undisturbed(engines.pipeline, self.world.ledger.alike)[own.step]
        if own.state != due:
            raise self.broken(f"version {own.step} at {host.name} is not what one undisturbed node makes", "pure")


def undisturbed(pipeline: Pipeline, alike: frozenset[str]) -> dict[int, State]:
    """The state of every version, by step, as one node alone makes them; whatever rule is broken now."""
    return _undisturbed(pipeline.canonical(), pipeline, alike)


@cache
def _undisturbed(form: bytes, pipeline: Pipeline, alike: frozenset[str]) -> dict[int, State]:
    """`form`: tells pipelines apart."""
    with whole():
        world, states = World(spawn, nodes=1, roles=[_roles(pipeline)], alike=alike), _States()
        world.watch(states)
        world.submit(0, pipeline)
        world.run(ENDS_S, lambda: pipeline.schedule.versions in states.found)
    return states.found


def _roles(pipeline: Pipeline) -> tuple[str, ...]:
    """All that its stages require."""
    return tuple(sorted({word for stage in pipeline.stages for word in stage.requires}))


class _States:
    """A watcher that keeps what versions consist of."""

    def __init__(self) -> None:
        self.found: dict[int, State] = {}

    def saw(self, host: Host, action: Action) -> None:
        if isinstance(action, Advanced) and (own := node_of(host).runs[action.run].state.versions.own) is not None:
            self.found[own.step] = own.state

    def heard(self, host: Host, event: Event) -> None:
        """Of no account."""

    def dies(self, host: Host) -> None:
        """Nobody does."""
