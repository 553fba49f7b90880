"""Faults of runs, drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from random import Random

from ....work import FailureKind
from ...faults import Cancel, Fault, Poison, Stop
from ...toy import TOY_PARTITIONS
from .scene import Drawer, Scene

KINDS: tuple[FailureKind, ...] = ("user", "user", "engine")
FAILS_SHARE = 0.15  # of worlds with a run that leaves nothing out, in which it fails by itself


def poison(rng: Random) -> Poison:
    """One partition fails wherever it is tried: its code raises, or it kills the engine."""
    return Poison("roll", rng.randrange(TOY_PARTITIONS), rng.choice(KINDS))


def _poison(rng: Random, scene: Scene, node: int) -> Fault | None:
    """A run that does not leave out what is at fault rightly fails, and is resumed when that is mended: in a part of
    the worlds. Where other works fail as well nobody could tell why it did."""
    if scene.breaks:
        return None
    if scene.skips:
        return poison(rng)
    mended = replace(poison(rng), mended_after_s=rng.choice([1.0, 3.0, 6.0]), resumed_by=rng.randrange(scene.count))
    return mended if rng.random() < FAILS_SHARE else None


def _stop(rng: Random, scene: Scene, node: int) -> Fault:
    """Any node may be asked to resume it."""
    return Stop(rng.randrange(scene.count), rng.choice([0.1, 1.0, 4.0]), node)


RUNS: Mapping[str, Drawer] = {
    "cancel": lambda rng, scene, node: Cancel(node),
    "poison": _poison,
    "stop": _stop,
}
