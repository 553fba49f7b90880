"""When drawn faults strike."""

from __future__ import annotations

from random import Random

from dflow_protocols.simulator.drawn.drawing.scene import Scene
from dflow_protocols.simulator.faults import At, Join, Moment, Pause, When
from dflow_protocols.simulator.spawn import spawn
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.simulator.world import World


def moments(seed: int, has_run: bool = True) -> list[Moment]:
    """Of twenty pauses of node 1, drawn for a mesh of two."""
    world = World(spawn, nodes=2, seed=seed)
    if has_run:
        world.submit(0, two_steps())
    scene = Scene(world, 5.0, submitter=0)
    for _ in range(20):
        scene.plan_some_time(Random(seed), Pause(1.0, 1))
    return [moment for moment, _ in scene.planned]


def test_in_half_of_the_worlds_faults_strike_at_events() -> None:
    """Between which two actions of a node it dies matters more than when; the other half strikes amid waits, too."""
    by_event = 0
    for seed in range(60):
        kinds = {type(moment) for moment in moments(seed)}
        assert kinds in ({At}, {When})
        by_event += kinds == {When}
    assert 20 < by_event < 40
    nodes = {moment.node for seed in range(9) for moment in moments(seed) if isinstance(moment, When)}
    assert nodes == {None, 1}


def test_without_a_run_faults_strike_at_times() -> None:
    """Membership alone does nothing of what is counted, and a fault would wait for ever."""
    assert {type(moment) for seed in range(9) for moment in moments(seed, has_run=False)} == {At}


def test_who_is_to_join_cannot_be_the_one_that_sets_it_off() -> None:
    """It does nothing before it is there."""
    world = World(spawn, nodes=2, seed=1)
    world.submit(0, two_steps())
    scene = Scene(world, 5.0, submitter=0)
    for _ in range(20):
        scene.plan_some_time(Random(1), Join(1))
    assert {moment.node for moment, _ in scene.planned if isinstance(moment, When)} <= {None}
