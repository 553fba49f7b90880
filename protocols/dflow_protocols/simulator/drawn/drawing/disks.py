"""Faults of disks and stores, drawn."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from ...faults import Fault, FillStore, FullDisk, LoseState
from .scene import Drawer, Scene


def _lose_state(rng: Random, scene: Scene, node: int) -> Fault | None:
    """The submitter stays as it is: for a while it may be the only one to have the run on its disk."""
    return LoseState(rng.choice([0.2, 2.0, 8.0]), node) if node != scene.submitter else None


DISKS: Mapping[str, Drawer] = {
    "full_disk": lambda rng, scene, node: FullDisk(rng.choice([1.0, 5.0, 12.0]), node),
    "lose_state": _lose_state,
    "fill_store": lambda rng, scene, node: FillStore(rng.choice([1.0, 3.0, 8.0]), node),
}
