"""Faults of runs, drawn."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from ...faults import Cancel, Fault, Poison, Stop
from ...toy import TOY_PARTITIONS
from .scene import Drawer, Scene


def poison(rng: Random) -> Poison:
    """User code fails on one partition wherever it is tried: the run leaves it out."""
    return Poison("roll", rng.randrange(TOY_PARTITIONS), "user")


def _poison(rng: Random, scene: Scene, node: int) -> Fault | None:
    """Where a run does not leave out what is at fault, or other works fail as well, it rightly fails."""
    return poison(rng) if scene.skips and not scene.breaks else None


def _stop(rng: Random, scene: Scene, node: int) -> Fault:
    """Any node may be asked to resume it."""
    return Stop(rng.randrange(scene.count), rng.choice([0.1, 1.0, 4.0]), node)


RUNS: Mapping[str, Drawer] = {
    "cancel": lambda rng, scene, node: Cancel(node),
    "poison": _poison,
    "stop": _stop,
}
