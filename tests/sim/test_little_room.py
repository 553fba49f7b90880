"""Nodes with little room: what is put off or given up comes about later, and nothing waits for ever."""

from __future__ import annotations

import pytest

from dflow_protocols.names import RunId
from dflow_protocols.simulator.faults import Pause
from dflow_protocols.simulator.goals import finish
from dflow_protocols.simulator.model.provenance import PARAMETER_BYTES
from dflow_protocols.simulator.model.work import NOISY
from dflow_protocols.simulator.toy import two_steps
from tests.support.simulated import ENDS_S, mesh

FIRST, SECOND = RunId("a" * 32), RunId("b" * 32)


@pytest.mark.parametrize(("nodes", "room"), [(2, 9), (3, 9)])
def test_two_runs_in_the_room_of_little_more_than_one_both_end_though_a_node_lags(nodes: int, room: int) -> None:
    """Each run alone takes up to 6 times its parameters on a node, both together 12; no disk is behind it."""
    shed = 0
    for seed in range(3):
        world, first = mesh(nodes, noise=NOISY, seed=seed)
        for host in world.hosts:
            host.store.limit_bytes = room * PARAMETER_BYTES
        second = world.submit(nodes - 1, two_steps(), nonce="another")
        world.at(world.now + 1.0, Pause(8.0, nodes - 1))
        world.run(10.0)
        finish(world, first, ENDS_S)
        finish(world, second, ENDS_S)
        assert max(host.store.peak_bytes for host in world.hosts) <= room * PARAMETER_BYTES
        shed += sum(len(host.store.shed) for host in world.hosts)
    assert shed, "room was never short: the test shows nothing"
