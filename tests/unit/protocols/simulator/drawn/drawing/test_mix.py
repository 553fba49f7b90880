"""Which faults are drawn."""

from __future__ import annotations

from random import Random

from dflow_protocols.simulator.drawn.drawing.mix import draw_named
from dflow_protocols.simulator.drawn.drawing.scene import Scene
from dflow_protocols.simulator.spawn import spawn
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.simulator.world import World


def drawn(has_run: bool) -> int:
    world = World(spawn, nodes=2)
    if has_run:
        world.submit(0, two_steps())
    scene = Scene(world, 5.0, submitter=0)
    for seed in range(9):
        draw_named(Random(seed), scene, ("cancel", "stop", "poison"))
    return len(scene.planned)


def test_where_there_is_no_run_nothing_befalls_one() -> None:
    """It would be told as drawn, and as striking, in worlds of membership alone, where it does nothing."""
    assert drawn(has_run=False) == 0
    assert drawn(has_run=True) > 0
