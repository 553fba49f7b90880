"""Faults of networks, drawn."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from ...faults import Cut, Fault, Lose, Sever, Split
from .scene import Drawer, Scene


def lose(rng: Random) -> Lose:
    return Lose(rng.choice([0.005, 0.02, 0.1]))


def _cut(rng: Random, scene: Scene, node: int) -> Fault | None:
    return Cut(node, scene.another(rng, node), rng.choice([1.0, 5.0, 10.0])) if scene.count > 1 else None


def _split(rng: Random, scene: Scene, node: int) -> Fault | None:
    if scene.count == 1:
        return None
    return Split(scene.some(rng), rng.choice([1.0, 4.0, 8.0]), inbound=rng.random() < 0.3)


def _sever(rng: Random, scene: Scene, node: int) -> Fault | None:
    """The two need somebody between them."""
    if scene.count < 4 or scene.dead:
        return None
    scene.keep_all()
    return Sever(*rng.sample(range(scene.count), 2))


NETWORK: Mapping[str, Drawer] = {
    "cut": _cut,
    "split": _split,
    "sever": _sever,
    "lose": lambda rng, scene, node: lose(rng),
}
