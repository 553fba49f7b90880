"""A power cut of the whole site: what lies on the disks must do, whatever became of some of them."""

from __future__ import annotations

from functools import cache

import pytest

from dflow_protocols.names import RunId, ShardId
from dflow_protocols.simulator.faults import PowerCut, action
from dflow_protocols.simulator.goals import ended, finish, state_at
from dflow_protocols.simulator.toy import warm_then_two
from dflow_protocols.simulator.work import NOISY, PURE, WILD
from dflow_protocols.simulator.world import World
from tests.sim.meshes import ENDS_S, mesh

STRIDE = 41  # of a node's actions; the slow form takes every single one
SAVING = warm_then_two(every=1)


@cache
def undisturbed(nodes: int) -> tuple[tuple[ShardId, ...], range]:
    """The final parameters, and node 0's actions while the run lasts."""
    world, run = mesh(nodes, pipeline=SAVING)
    before = world.hosts[0].performed
    weights = finish(world, run, ENDS_S)
    return weights, range(before, world.hosts[0].performed)


def cut(nodes: int, index: int, fault: PowerCut, noise: frozenset[type] = PURE) -> tuple[World, RunId]:
    world, run = mesh(nodes, pipeline=SAVING, noise=noise)
    world.when(action(0, index), fault)
    world.run(ENDS_S, ended(world, run))
    return world, run


def survives(nodes: int, index: int, fault: PowerCut, noise: frozenset[type] = PURE) -> None:
    """The run ends as if nothing had been; unless nobody was promised anything and nobody knows of it."""
    world, run = cut(nodes, index, fault, noise)
    if not world.hosts[0].replies and all(state_at(host, run) is None for host in world.live()):
        return
    weights = finish(world, run, ENDS_S)
    if noise == PURE:
        assert weights == undisturbed(nodes)[0]


CUTS = {
    "kept": PowerCut(2.0),
    "unequal_boots": PowerCut(12.0),
    "fewer_nodes": PowerCut(2.0, stays_off=(2,)),
    "torn": PowerCut(2.0, torn=(0, 1, 2)),
    "one_disk_lost": PowerCut(2.0, lost=(1,)),
    "one_disk_lost_others_torn": PowerCut(2.0, lost=(2,), torn=(0, 1)),
}


@pytest.mark.parametrize("name", CUTS)
def test_a_run_outlives_a_power_cut_of_the_whole_site(name: str) -> None:
    """Killed at any moment, the mesh goes on by itself, in the same weights."""
    for index in undisturbed(3)[1][sorted(CUTS).index(name) :: 2 * STRIDE]:
        survives(3, index, CUTS[name])


@pytest.mark.parametrize("noise", [NOISY, WILD], ids=["noisy", "wild"])
def test_a_power_cut_mixes_nothing(noise: frozenset[type]) -> None:
    """What is made again has other bytes than what lies in older checkpoints."""
    for index in undisturbed(3)[1][:: 2 * STRIDE]:
        survives(3, index, PowerCut(4.0, lost=(1,)), noise)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("noise", [PURE, NOISY], ids=["pure", "noisy"])
@pytest.mark.parametrize("name", CUTS)
def test_a_run_outlives_a_power_cut_at_every_moment(name: str, noise: frozenset[type]) -> None:
    """The same for every single action."""
    for index in undisturbed(3)[1]:
        survives(3, index, CUTS[name], noise)
