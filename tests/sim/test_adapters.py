"""Versions that hold adapters alone: each names the base that the first one named, wherever it goes."""

from __future__ import annotations

import pytest

from dflow_protocols.names import RunId
from dflow_protocols.simulator.faults import Crash, Join, PowerCut
from dflow_protocols.simulator.goals import begin_again, finish, node
from dflow_protocols.simulator.toy import two_models, warm_then_two, with_adapters
from dflow_protocols.simulator.world import World
from tests.support.simulated import ENDS_S, mesh

ADAPTERS = with_adapters(warm_then_two(every=1))


def bases(world: World, run: RunId) -> set[tuple[str, ...]]:
    """Names of the bases in the versions that living nodes ended with."""
    own = [node(host).runs[run].state.versions.own for host in world.live()]
    return {tuple(name for name, _ in header.state if name.startswith("base:")) for header in own if header}


def test_each_model_has_its_own_base() -> None:
    """Two models that are trained in turn: an update of one leaves what is said of the other."""
    world, run = mesh(3, pipeline=with_adapters(two_models()))
    finish(world, run, ENDS_S)
    assert bases(world, run) == {("base:judge", "base:policy")}


@pytest.mark.parametrize("nodes", [2, 4])
def test_adapters_do_not_depend_on_how_many_nodes_train_them(nodes: int) -> None:
    """As whole weights do not."""
    alone, same = mesh(1, pipeline=ADAPTERS)
    world, run = mesh(nodes, pipeline=ADAPTERS)
    assert finish(world, run, ENDS_S) == finish(alone, same, ENDS_S)


def test_a_base_outlives_crashes_and_is_learnt_by_who_joins() -> None:
    """32 bytes that no update makes anew are copied on with each version, or a joiner would have no proof."""
    world, run = mesh(3, pipeline=ADAPTERS)
    world.at(world.now + 1.0, Crash(1))
    world.at(world.now + 1.2, Join(world.add((0, 2)).index))
    finish(world, run, ENDS_S)
    assert bases(world, run) == {("base:policy",)}


@pytest.mark.parametrize("after_s", [0.6, 1.5, 3.0])
def test_a_base_comes_back_from_disks_after_a_power_cut(after_s: float) -> None:
    """A checkpoint holds it beside its adapters."""
    alone, same = mesh(1, pipeline=ADAPTERS)
    world, run = mesh(3, pipeline=ADAPTERS)
    world.at(world.now + after_s, PowerCut(2.0, lost=(1,)))
    begin_again(world, run, ENDS_S)
    assert finish(world, run, ENDS_S) == finish(alone, same, ENDS_S)
    assert bases(world, run) == {("base:policy",)}
