"""A chain whose stages have different engines: one call of each, and one chain to everybody else."""

from __future__ import annotations

import pytest

from dflow_protocols.events import Action, Start
from dflow_protocols.pipeline.spec import Pipeline
from dflow_protocols.simulator.faults import Crash, starts
from dflow_protocols.simulator.goals import ended, finish
from dflow_protocols.simulator.model.work import PURE, WILD
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.work import ChainWork
from tests.support.simulated import ENDS_S, mesh


def two_engines() -> Pipeline:
    """The toy pipeline, whose reward another engine computes than what comes before and after it."""
    raw = two_steps().to_dict()
    (score,) = (stage for stage in raw["stages"] if stage["id"] == "score")
    score["engine"] = "torch"
    return Pipeline.from_dict(raw)


@pytest.mark.parametrize("nodes", [1, 3, 5])
def test_each_engine_gets_its_own_calls_of_a_chain(nodes: int) -> None:
    """What one engine made goes on in the next: no stage runs twice, and any mesh makes the same weights."""
    called: list[tuple[str, ...]] = []

    def note(node: int, performed: int, action: Action) -> bool:
        if isinstance(action, Start) and isinstance(action.work, ChainWork):
            called.append(action.work.stages)
        return False

    world, run = mesh(nodes, seed=nodes, pipeline=two_engines())
    world.when(note, Crash())
    world.run(ENDS_S, ended(world, run))
    weights = finish(world, run, ENDS_S)
    assert set(called) == {("roll",), ("score",), ("adv",), ("held",)}
    if nodes == 1:
        assert [called.count((stage,)) for stage in ("roll", "score", "adv")] == [10, 10, 10]
    alone, same = mesh(1, pipeline=two_engines())
    assert weights == finish(alone, same, ENDS_S)


@pytest.mark.parametrize("noise", [PURE, WILD], ids=["pure", "wild"])
@pytest.mark.parametrize("nth", [1, 4, 9])
def test_a_node_that_dies_between_two_engines_of_a_chain_changes_nothing(noise: frozenset[type], nth: int) -> None:
    """Its partitions go on elsewhere from the records that still have a holder, or from the start."""
    world, run = mesh(3, seed=nth, noise=noise, pipeline=two_engines())
    world.when(starts(ChainWork, nth=nth), Crash(None, 1.0), 0.01)
    world.run(ENDS_S, ended(world, run))
    finish(world, run, ENDS_S)
