"""Which faults are drawn."""

from __future__ import annotations

from random import Random

import pytest

from dflow_protocols.simulator.drawn.drawing.mix import draw_faults, draw_named
from dflow_protocols.simulator.drawn.drawing.scene import Scene
from dflow_protocols.simulator.faults import Handicap
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


@pytest.mark.parametrize("kinds", [(), ("handicap",)], ids=["usual", "handicaps"])
def test_what_a_machine_makes_can_come_to_somebody(kinds: tuple[str, ...]) -> None:
    """One that serves nobody, and whose disk takes nothing, may be further than all others, and no run would end."""
    both = 0
    for seed in range(300):
        scene = Scene(World(spawn, nodes=2, seed=seed), 5.0, submitter=0)
        if kinds:
            draw_named(Random(seed), scene, kinds)
        else:
            draw_faults(Random(seed), scene)
        drawn = [fault.kind for _, fault in scene.planned if isinstance(fault, Handicap)]  # of the other machine
        assert not {"mute", "read-only"} <= {*drawn}
        both += len({*drawn}) > 1
    assert both > 0
