"""Faults of networks, drawn."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from ....events import Lane
from ...faults import CloseLane, Cut, Fault, FillQueue, Join, Lose, Narrow, Repeat, Sever, Split, Stall
from .scene import Drawer, Scene

LANES: tuple[Lane, ...] = ("control", "bulk")


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


def _stall(rng: Random, scene: Scene, node: int) -> Fault | None:
    return Stall(node, scene.another(rng, node), rng.choice([0.2, 1.0, 3.0, 8.0])) if scene.count > 1 else None


def _fill_queue(rng: Random, scene: Scene, node: int) -> Fault | None:
    return FillQueue(node, scene.another(rng, node), rng.choice([0.2, 1.0, 3.0, 8.0])) if scene.count > 1 else None


def _close_lane(rng: Random, scene: Scene, node: int) -> Fault:
    """Often of a newcomer, which is dialled for the first time then."""
    if rng.random() < 0.5:
        node = scene.world.add(tuple(range(scene.count))).index
        scene.plan_some_time(rng, Join(node))
    return CloseLane(rng.choice(LANES), rng.choice([1.0, 5.0, 10.0]), node)


NETWORK: Mapping[str, Drawer] = {
    "cut": _cut,
    "split": _split,
    "sever": _sever,
    "lose": lambda rng, scene, node: lose(rng),
    "repeat": lambda rng, scene, node: Repeat(rng.choice([0.02, 0.1, 0.5])),
    "stall": _stall,
    "fill_queue": _fill_queue,
    "narrow": lambda rng, scene, node: Narrow(rng.choice([1e6, 4e6, 2e7])),
    "close_lane": _close_lane,
}
