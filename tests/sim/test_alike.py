"""Things made for different ends that come out with equal bytes, and so lie under one id: what frees one of them must
not free the other."""

from __future__ import annotations

import pytest

from dflow_protocols.names import CHUNK_BYTES
from dflow_protocols.simulator.faults import Crash, Pause
from dflow_protocols.simulator.goals import finish
from dflow_protocols.simulator.model import provenance
from dflow_protocols.simulator.model.provenance import ALIKE, GRADIENTS, PARTITIONS, WEIGHTS
from dflow_protocols.simulator.toy import two_models, warm_then_two
from tests.support.simulated import ENDS_S, mesh

KINDS = [frozenset({GRADIENTS}), frozenset({PARTITIONS}), frozenset({WEIGHTS}), ALIKE]


def names(kinds: frozenset[str]) -> str:
    return "+".join(sorted(kinds)) or "nothing"


@pytest.fixture(autouse=True)
def one_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose gradient fits one slice, so that blocks, slices and parameters have one length."""
    monkeypatch.setattr(provenance, "PARAMETER_BYTES", CHUNK_BYTES - 4096)


@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("alike", KINDS, ids=names)
def test_a_run_in_which_things_are_alike_ends_like_any_other(nodes: int, alike: frozenset[str]) -> None:
    """Rewards all alike give a gradient of zeros, whose block and slice are one shard; weights then stay the same."""
    world, run = mesh(nodes, pipeline=warm_then_two(every=1), alike=alike, seed=nodes)
    finish(world, run, ENDS_S)


@pytest.mark.parametrize("alike", KINDS, ids=names)
def test_what_is_alike_is_freed_for_one_end_only_though_nodes_die_and_lag(alike: frozenset[str]) -> None:
    """A death or a pause is when nodes free at other times than each other, and copy what others made."""
    world, run = mesh(3, pipeline=warm_then_two(every=1), alike=alike)
    world.at(world.now + 1.0, Pause(8.0, 2))
    world.at(world.now + 2.0, Crash(1, 1.0))
    world.run(12.0)
    finish(world, run, ENDS_S)


@pytest.mark.parametrize("alike", [frozenset(), frozenset({WEIGHTS})], ids=names)
def test_two_models_that_start_alike_are_trained_apart(alike: frozenset[str]) -> None:
    """Their parameters are one shard of two names, until the first update of either."""
    world, run = mesh(3, pipeline=two_models(), alike=alike)
    finish(world, run, ENDS_S)
