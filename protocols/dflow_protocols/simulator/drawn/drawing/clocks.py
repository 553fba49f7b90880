"""Faults of clocks and of processes that are late, drawn."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from ...faults import Drift, Fault, Lag, Leap
from .scene import Drawer, Scene


def _lag(rng: Random, scene: Scene, node: int) -> Fault:
    return Lag(rng.choice([0.06, 0.2, 0.8, 2.0]), rng.choice([1.0, 4.0, 8.0]), node)


CLOCKS: Mapping[str, Drawer] = {
    "drift": lambda rng, scene, node: Drift(rng.uniform(0.98, 1.02), node),
    "leap": lambda rng, scene, node: Leap(rng.choice([0.3, 2.0, 30.0]), node),
    "lag": _lag,
}
