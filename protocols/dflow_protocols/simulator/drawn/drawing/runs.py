"""Faults of runs, drawn."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from ...faults import Cancel, Poison
from ...toy import TOY_PARTITIONS
from .scene import Drawer


def poison(rng: Random) -> Poison:
    """User code fails on one partition wherever it is tried: the run leaves it out."""
    return Poison("roll", rng.randrange(TOY_PARTITIONS), "user")


RUNS: Mapping[str, Drawer] = {
    "cancel": lambda rng, scene, node: Cancel(node),
    "poison": lambda rng, scene, node: poison(rng),
}
