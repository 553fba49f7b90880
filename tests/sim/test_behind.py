"""Rollouts that are behind what trains on them, as the spec says (`lag`) or as far as their sampler is (`async`):
whatever breaks while several steps are open. Where weights follow from the spec, they stay the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from dflow_protocols.names import ShardId
from dflow_protocols.pipeline.grammar.engines import EXACT
from dflow_protocols.pipeline.spec import Pipeline
from dflow_protocols.simulator.faults import (
    BreakEngine,
    Cancel,
    Crash,
    Fault,
    Join,
    Pause,
    PowerCut,
    Split,
    Trigger,
    When,
    starts,
)
from dflow_protocols.simulator.goals import begin_again, ended, finish, finish_cancelled, node, state_at
from dflow_protocols.simulator.toy import (
    actor_critic,
    several_updates,
    two_steps,
    with_async,
    with_lag,
    with_old_policy,
    with_segments,
    with_sizes,
)
from dflow_protocols.work import ApplyWork, BlockWork, ChainWork, SaveWork
from tests.support.simulated import ENDS_S, NOISES, Sampled, mesh, undisturbed_weights

FOUR = with_sizes(two_steps(), 4, 5, 4)
SEVERAL = {
    "lag, several updates": with_lag(replace(several_updates(), steps=3), 1),  # they begin with versions 0, 5, 9
    "lag 2, a critic": with_lag(actor_critic(), 2),  # with 0, 4, 6
    "async, several updates": with_async(with_old_policy(actor_critic()), 1),
}
PIPELINES = {"lag": with_lag(FOUR, 2), "async": with_segments(FOUR, 2), **SEVERAL}


def is_due(pipeline: Pipeline, weights: tuple[ShardId, ...], noise: frozenset[type] = frozenset()) -> bool:
    """Whether a run may end with these weights."""
    return bool(noise) or pipeline.reproducibility != EXACT or weights == undisturbed_weights(pipeline)


def first(pipeline: Pipeline, step: int) -> int:
    """The version that a step begins with."""
    return pipeline.schedule.first(step)


MOMENTS: dict[str, Callable[[Pipeline], tuple[Trigger, Fault]]] = {
    "in a rollout ahead": lambda p: (starts(ChainWork, step=first(p, 1)), Crash()),
    "in a rollout two steps ahead": lambda p: (starts(ChainWork, step=first(p, 2)), Crash()),
    "as the version is applied that others sample from": lambda p: (starts(ApplyWork, step=0), Crash()),
    "as the last update of a step is applied": lambda p: (starts(ApplyWork, step=first(p, 1) - 1), Crash()),
    "in a leaf": lambda p: (starts(BlockWork, step=first(p, 1)), Crash()),
    "and comes back": lambda p: (starts(ApplyWork, step=first(p, 1)), Crash(None, 1.0)),
    "or its engine alone": lambda p: (starts(ChainWork, step=first(p, 2)), BreakEngine(2)),
    "or is cut off": lambda p: (starts(BlockWork, step=first(p, 1)), Split((1,), 8.0)),
}


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(
    ("name", "nodes"), [("lag", 2), ("lag, several updates", 2), *((each, 3) for each in PIPELINES)]
)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_node_dies(moment: str, name: str, nodes: int, noise: frozenset[type]) -> None:
    """What it did ahead is dealt again, and what has a record goes on from there; what is sampled from has every node
    that works on the run. The world holds each group to be trained once an update."""
    pipeline = PIPELINES[name]
    trigger, fault = MOMENTS[moment](pipeline)
    world, run = mesh(nodes, noise=noise, pipeline=pipeline)
    world.when(trigger, fault, 0.02)
    world.run(ENDS_S, ended(world, run))
    assert is_due(pipeline, finish(world, run, ENDS_S), noise)


@pytest.mark.parametrize("comes_back", [True, False], ids=["comes back", "stays away"])
@pytest.mark.parametrize("version", range(1, 9))
@pytest.mark.parametrize("name", SEVERAL)
def test_a_node_may_die_between_any_two_updates(name: str, version: int, comes_back: bool) -> None:
    """What later steps sample from is in each version, also amid a step."""
    pipeline, which = SEVERAL[name], version % 3
    world, run = mesh(3, pipeline=pipeline, seed=version // 3)
    world.plan(When("advance", version, node=which), Crash(which, 1.0 if comes_back else None))
    world.run(ENDS_S, ended(world, run))
    assert world.hosts[which].lives == (2 if comes_back else 1)
    assert is_due(pipeline, finish(world, run, ENDS_S))


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("version", [2, 5])
@pytest.mark.parametrize("name", SEVERAL)
def test_a_node_may_stall_between_two_updates(name: str, version: int, noise: frozenset[type]) -> None:
    """It copies what the others made meanwhile, and with it what the next steps are sampled from."""
    pipeline = SEVERAL[name]
    world, run = mesh(3, pipeline=pipeline, noise=noise)
    world.plan(When("advance", version, node=1), Pause(8.0, 1))
    world.run(ENDS_S, ended(world, run))
    assert is_due(pipeline, finish(world, run, ENDS_S), noise)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("seconds", [3.0, 12.0])
@pytest.mark.parametrize("name", ["lag", "async", "lag, several updates"])
def test_two_halves_part_at_a_version_that_is_sampled_from(name: str, seconds: float, noise: frozenset[type]) -> None:
    """What the losing half sampled counts for nothing on the other chain, unless it is of what both have."""
    pipeline = PIPELINES[name]
    for begins_s in (0.7, 1.6, 2.5):
        world, run = mesh(4, noise=noise, pipeline=pipeline)
        world.run(begins_s)
        world.at(world.now, Split((0, 1), seconds))
        world.run(seconds + 0.1)
        assert is_due(pipeline, finish(world, run, ENDS_S), noise)


@pytest.mark.parametrize("tenths", range(0, 60, 12))
@pytest.mark.parametrize("name", PIPELINES)
def test_a_joiner_goes_on_alone_from_what_it_copied(name: str, tenths: int) -> None:
    """With a version come the parameters that later steps sample from, or the names of the versions that they may be
    of: those who held them may all be gone. Amid a step nobody may have what that one trains on any more, and then the
    run says so."""
    pipeline = PIPELINES[name]
    world, run = mesh(2, pipeline=pipeline)
    joiner = world.add((0,))
    world.at(world.now + 0.2, Join(joiner.index))
    world.run(30.0, lambda: joiner.machine is not None and state_at(joiner, run) is not None)
    for each in (0, 1):
        world.at(world.now + tenths / 10, Crash(each))
    world.run(tenths / 10 + 0.1)
    weights = finish(world, run, ENDS_S)
    lost = node(joiner).runs[run].summary()["skipped"] > 0
    assert lost or is_due(pipeline, weights)
    assert not lost or name in SEVERAL


@pytest.mark.parametrize("nth", [0, 1, 2])
@pytest.mark.parametrize("name", PIPELINES)
def test_a_run_begins_again_from_its_disks(name: str, nth: int) -> None:
    """A checkpoint holds what later steps sample from. What was sampled ahead is gone with the memory, and is sampled
    again: a run ends in the weights of one that was never stopped."""
    pipeline = replace(PIPELINES[name], checkpoint={"every": 1, "keep": 2})
    world, run = mesh(2, pipeline=pipeline)
    world.when(starts(SaveWork, nth=nth), PowerCut(2.0), 0.3)
    begin_again(world, run, ENDS_S)
    world.run(ENDS_S, ended(world, run))
    assert is_due(pipeline, finish(world, run, ENDS_S))


@pytest.mark.parametrize("step", [0, 1, 2])
@pytest.mark.parametrize("name", PIPELINES)
def test_a_run_is_cancelled_with_several_steps_open(name: str, step: int) -> None:
    """All that was done ahead is given up and freed."""
    pipeline = PIPELINES[name]
    world, run = mesh(3, pipeline=pipeline)
    world.when(starts(ChainWork, step=first(pipeline, step)), Cancel(1), 0.01)
    world.run(30.0, ended(world, run, "cancelled"))
    finish_cancelled(world, run, ENDS_S)


@pytest.mark.parametrize("name", SEVERAL)
def test_what_was_lost_is_sampled_again_as_it_was(name: str) -> None:
    """All who held a partition died, amid the updates that train on it, and who is left has the version that the step
    began with: there lie the parameters that were sampled from, older ones than the step's own."""
    pipeline = SEVERAL[name]
    version = first(pipeline, 2) + 1
    is_again = False
    for left in range(3):
        world, run = mesh(3, pipeline=pipeline)
        for index in {0, 1, 2} - {left}:
            world.plan(When("advance", version, node=left), Crash(index))
        world.watch(sampled := Sampled())
        world.run(ENDS_S, ended(world, run))
        assert len(world.live()) == 1
        is_again |= any(step >= version for step, _ in sampled.of)
        assert is_due(pipeline, finish(world, run, ENDS_S))
    assert is_again
