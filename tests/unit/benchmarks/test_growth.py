"""What a simulated mesh costs: each node brings the same work, and the time of handling shows in a step."""

from __future__ import annotations

import pytest

from benchmarks.growth import of_size, sized
from benchmarks.growth.charged import Costs
from benchmarks.growth.world import BusyWorld
from benchmarks.scaling.profile import load
from dflow_protocols.membership.timing import Timing

WORK = load("siirl-table1")


def test_a_step_takes_as_long_as_devices_compute_and_handling_beside_it() -> None:
    """What a small mesh costs is little, and is told by kind."""
    found = of_size(2, WORK, 4.0, 2, Timing.local())
    assert 4.0 < found.step_s < 8.0
    assert found.efficiency == pytest.approx(4.0 / found.step_s)
    assert 0 < found.cpu_s <= found.busiest_cpu_s
    assert found.frames > 0
    assert {"seal_put", "standings"} <= found.kinds_kb.keys()


def test_each_node_brings_the_same_work() -> None:
    """So a step ideally takes as long on many as on one."""
    few, many = (sized(WORK, nodes, 2).stages for nodes in (2, 64))
    assert few[0].config["prompts"] * 32 == many[0].config["prompts"]
    assert few[0].config["partitions"] * 32 == many[0].config["partitions"]


@pytest.mark.parametrize("nodes", [512, 1024])
def test_a_mesh_may_be_so_large_that_nodes_share_what_a_step_is_cut_into(nodes: int) -> None:
    """The question goes up to there, though a step has no four leaves for each of so many."""
    roll, *_, learn = sized(WORK, nodes, 2).stages
    assert roll.config["prompts"] == WORK.prompts * nodes
    assert roll.config["partitions"] % nodes == 0
    assert learn.config["leaves"] % nodes == 0


def test_what_a_turn_took_is_charged_once() -> None:
    """To the node that took it, from when it was over."""
    costs = Costs(Timing.local())
    BusyWorld(costs, nodes=2).run(1.0)
    assert costs.seconds.keys() == {0, 1}
    assert costs.end_turn(0) == 0.0
