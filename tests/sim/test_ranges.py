"""A model that lies in several shards a role: parameters, moments and gradients in three ranges each."""

from __future__ import annotations

import pytest

from dflow_protocols.names import CHUNK_BYTES
from dflow_protocols.simulator.faults import Crash, Pause
from dflow_protocols.simulator.goals import finish
from dflow_protocols.simulator.model.provenance import ALIKE
from dflow_protocols.simulator.model.work import NOISY, PURE
from dflow_protocols.simulator.toy import warm_then_two, with_bfloat16
from tests.support.simulated import ENDS_S, mesh

CUT = warm_then_two(every=1, range_bytes=CHUNK_BYTES)


def test_any_number_of_nodes_makes_the_same_ranges() -> None:
    """Slices lie across their borders, and whoever owns one reads it from as many shards as it touches."""
    ends = set()
    for nodes in (1, 3, 4):
        world, run = mesh(nodes, pipeline=CUT, seed=nodes)
        ends.add(finish(world, run, ENDS_S))
    assert len(ends) == 1
    assert len(ends.pop()) == 3


def test_gradients_of_half_the_bytes_are_cut_at_the_same_elements() -> None:
    """Of bfloat16, in ranges or in one shard; whoever dies, the weights are those of one node alone."""
    for pipeline in (with_bfloat16(CUT), with_bfloat16(warm_then_two(every=1))):
        alone, same = mesh(1, pipeline=pipeline)
        world, run = mesh(3, pipeline=pipeline)
        world.at(world.now + 2.0, Crash(1, 1.0))
        assert finish(world, run, ENDS_S) == finish(alone, same, ENDS_S)


@pytest.mark.parametrize("alike", [frozenset(), ALIKE], ids=["unlike", "alike"])
@pytest.mark.parametrize("noise", [PURE, NOISY], ids=["pure", "noisy"])
def test_ranges_are_copied_and_freed_together_though_nodes_die_and_lag(
    noise: frozenset[type], alike: frozenset[str]
) -> None:
    """Also where two ranges of a role have equal bytes, and so one id."""
    world, run = mesh(3, pipeline=CUT, noise=noise, alike=alike)
    world.at(world.now + 1.0, Pause(8.0, 2))
    world.at(world.now + 2.0, Crash(1, 1.0))
    world.run(12.0)
    finish(world, run, ENDS_S)
