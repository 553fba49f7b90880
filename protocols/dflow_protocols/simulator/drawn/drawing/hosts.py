"""Faults of machines, drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from random import Random

from ...faults import (
    HANDICAPS,
    BreakEngine,
    Clone,
    Crash,
    Drain,
    Fault,
    Handicap,
    HangEngine,
    Join,
    Leave,
    LoseDevices,
    Pause,
    PowerCut,
)
from .scene import Drawer, Scene


def crash_and_return(rng: Random, node: int) -> Crash:
    return Crash(node, rng.choice([0.2, 1.0, 6.0]))


def power_cut(rng: Random, scene: Scene, node: int) -> Fault:
    """Of some machines the newest checkpoint is torn."""
    torn = tuple(rng.sample(range(scene.count), rng.randint(0, scene.count)))
    return PowerCut(rng.choice([0.2, 2.0, 8.0]), torn=torn)


def _crash(rng: Random, scene: Scene, node: int) -> Fault | None:
    """For good."""
    if not scene.may_die(node):
        return None
    scene.bury(node)
    return Crash(node)


def _leave(rng: Random, scene: Scene, node: int) -> Fault | None:
    if not scene.may_die(node):
        return None
    scene.bury(node)
    return Leave(node)


def _join(rng: Random, scene: Scene, node: int) -> Fault:
    """Whoever is left, the newcomer finds them."""
    return Join(scene.world.add(tuple(range(scene.count))).index)


def _clone(rng: Random, scene: Scene, node: int) -> Fault | None:
    """Somebody else has to stay: two that are alone never hear of each other."""
    if scene.count - len(scene.dead) < 2:
        return None
    scene.keep_all()
    return Clone(rng.choice([0.1, 1.0, 4.0]), rng.choice([None, None, 0.3, 2.0, 6.0]), node)


def keeps_a_way(handicap: Handicap, others: Iterable[Fault]) -> bool:
    """Whether what its machine makes can come to anybody: one that serves nobody, and whose disk takes nothing, would
    be further than all others for good."""
    known = (each for each in (handicap, *others) if isinstance(each, Handicap))
    return not {each.kind for each in known if each.node == handicap.node} >= {"mute", "read-only"}


def _handicap(rng: Random, scene: Scene, node: int) -> Fault | None:
    """The submitter stays whole, so that the run can end."""
    if scene.count == 1:
        return None
    kind = rng.choice([each for each in HANDICAPS if each != "broken"])
    handicap = Handicap(kind, scene.another(rng, scene.submitter))
    return handicap if keeps_a_way(handicap, [fault for _, fault in scene.planned]) else None


HOSTS: Mapping[str, Drawer] = {
    "crash": _crash,
    "power_cut": power_cut,
    "pause": lambda rng, scene, node: Pause(rng.choice([0.3, 2.0, 8.0]), node),
    "break_engine": lambda rng, scene, node: BreakEngine(1, "engine", node),
    "hang_engine": lambda rng, scene, node: HangEngine(rng.choice([1.0, 3.0, 6.0]), node),
    "lose_devices": lambda rng, scene, node: LoseDevices(rng.choice([0.5, 3.0]), node),
    "join": _join,
    "leave": _leave,
    "drain": lambda rng, scene, node: Drain(node, rng.choice([0.2, 1.0, 5.0])),
    "handicap": _handicap,
    "clone": _clone,
}
