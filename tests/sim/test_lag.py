"""Rollouts that are behind: steps overlap, and the weights are the same whoever takes part and whatever breaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest

from dflow_protocols.events import Action, Advanced, Event, Start
from dflow_protocols.names import ShardId
from dflow_protocols.pipeline.spec import Pipeline
from dflow_protocols.simulator.faults import BreakEngine, Cancel, Crash, Fault, Join, PowerCut, Split, Trigger, starts
from dflow_protocols.simulator.goals import begin_again, ended, finish, finish_cancelled, state_at
from dflow_protocols.simulator.model.host import Host
from dflow_protocols.simulator.model.work import NOISY, PURE
from dflow_protocols.simulator.toy import two_models, two_steps, warm_then_two, with_lag, with_sizes
from dflow_protocols.work import ApplyWork, BlockWork, ChainWork, SaveWork, Work
from tests.support.simulated import ENDS_S, NOISES, mesh

FOUR = with_sizes(two_steps(), 4, 5, 4)
LAGGED = with_lag(FOUR, 1)
SAVING = with_lag(replace(FOUR, checkpoint={"every": 1, "keep": 2}), 1)
PIPELINES = {
    "lag 1": LAGGED,
    "lag 2": with_lag(FOUR, 2),
    "longer than the run": with_lag(two_steps(), 8),
    "after a warm-up": with_lag(warm_then_two(), 1),
    "two models": with_lag(two_models(), 1),
}


@cache
def undisturbed(pipeline: Pipeline) -> tuple[ShardId, ...]:
    """What one node alone makes of it."""
    world, run = mesh(1, pipeline=pipeline)
    return finish(world, run, ENDS_S)


@pytest.mark.parametrize("nodes", [2, 4])
@pytest.mark.parametrize("name", PIPELINES)
def test_the_weights_follow_from_the_lag_and_not_from_the_mesh(name: str, nodes: int) -> None:
    """Which version a step samples from is the spec's to say, however far each node happens to be."""
    world, run = mesh(nodes, pipeline=PIPELINES[name], slots=(1, 2))
    assert finish(world, run, ENDS_S) == undisturbed(PIPELINES[name])


def test_a_lag_makes_other_weights() -> None:
    """It is another algorithm: a step trains on what an older version sampled."""
    assert len({undisturbed(FOUR), undisturbed(LAGGED), undisturbed(PIPELINES["lag 2"])}) == 3


class Begun:
    """Works in the order in which they are begun."""

    def __init__(self) -> None:
        self.works: list[Work] = []

    def saw(self, host: Host, action: Action) -> None:
        if isinstance(action, Start):
            self.works.append(action.work)

    def heard(self, host: Host, event: Event) -> None:
        """Nothing that matters here."""

    def dies(self, host: Host) -> None:
        """None does."""

    def rollouts(self, step: int) -> list[int]:
        """Where those of a step are in that order."""
        works = enumerate(self.works)
        return [
            at for at, work in works if isinstance(work, ChainWork) and (work.step, work.stages[0]) == (step, "roll")
        ]

    def update(self, step: int) -> int:
        """Where the first node applies it."""
        return next(at for at, work in enumerate(self.works) if isinstance(work, ApplyWork) and work.step == step)


class Gaps(Begun):
    """What each version tells of how far its rollouts were behind."""

    def __init__(self) -> None:
        super().__init__()
        self.by_version: dict[int, float | None] = {}

    def saw(self, host: Host, action: Action) -> None:
        if isinstance(action, Advanced):
            assert action.metrics.get("version_gap_max") == action.metrics.get("version_gap_min")
            self.by_version[action.head.step] = action.metrics.get("version_gap_max")


def test_the_next_steps_are_sampled_while_one_trains() -> None:
    """That is what a lag is for: who waits for slices and seals, or trains nothing, has something to do."""
    world, run = mesh(3, pipeline=PIPELINES["lag 2"], slots=(2,))
    world.watch(seen := Begun())
    finish(world, run, ENDS_S)
    for step in range(2):
        assert max(seen.rollouts(step + 1)) < seen.update(step)
    assert max(seen.rollouts(3)) < seen.update(2)


def test_how_far_rollouts_were_behind_is_told() -> None:
    """The first steps have no version to be that far behind."""
    world, run = mesh(2, pipeline=PIPELINES["lag 2"])
    world.watch(seen := Gaps())
    finish(world, run, ENDS_S)
    assert seen.by_version == {0: None, 1: 0.0, 2: 1.0, 3: 2.0, 4: 2.0}


def test_what_trains_goes_before_what_is_ahead() -> None:
    """Others wait for a leaf; nobody does for a later step's rollout."""
    world, run = mesh(1, pipeline=PIPELINES["lag 2"])
    world.watch(seen := Begun())
    finish(world, run, ENDS_S)
    kinds = [type(work) for work in seen.works]
    at = kinds.index(BlockWork)
    until = kinds.index(ApplyWork)
    leaves = [work for work in seen.works[at:until] if isinstance(work, BlockWork)]
    ahead = [work for work in seen.works[at:until] if isinstance(work, ChainWork)]
    assert leaves
    assert not [work for work in ahead if work.stages[0] != "held"]


MOMENTS: dict[str, Callable[[], tuple[Trigger, Fault]]] = {
    "in a rollout ahead": lambda: (starts(ChainWork, step=1), Crash()),
    "in a rollout two steps ahead": lambda: (starts(ChainWork, step=2), Crash()),
    "as the version is applied that others sample from": lambda: (starts(ApplyWork, step=0), Crash()),
    "in a leaf": lambda: (starts(BlockWork, step=1), Crash()),
    "and comes back": lambda: (starts(ApplyWork, step=1), Crash(None, 1.0)),
    "or its engine alone": lambda: (starts(ChainWork, step=2), BreakEngine(2)),
    "or is cut off": lambda: (starts(BlockWork, step=1), Split((1,), 8.0)),
}


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("nodes", [2, 3])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_node_dies(moment: str, nodes: int, noise: frozenset[type]) -> None:
    """What it did ahead is dealt again; what is sampled from has every node that works on the run."""
    trigger, fault = MOMENTS[moment]()
    pipeline = PIPELINES["lag 2"]
    world, run = mesh(nodes, noise=noise, pipeline=pipeline)
    world.when(trigger, fault, 0.02)
    world.run(ENDS_S, ended(world, run))
    weights = finish(world, run, ENDS_S)
    assert noise or weights == undisturbed(pipeline)


@pytest.mark.parametrize("noise", [PURE, NOISY], ids=["pure", "noisy"])
@pytest.mark.parametrize("seconds", [3.0, 12.0])
def test_two_halves_part_at_the_version_that_is_sampled_from(seconds: float, noise: frozenset[type]) -> None:
    """What the losing half sampled counts for nothing on the other chain, unless it is of what both have."""
    for begins_s in (0.7, 1.6, 2.5):
        world, run = mesh(4, noise=noise, pipeline=LAGGED)
        world.run(begins_s)
        world.at(world.now, Split((0, 1), seconds))
        world.run(seconds + 0.1)
        weights = finish(world, run, ENDS_S)
        assert noise or weights == undisturbed(LAGGED)


@pytest.mark.parametrize("tenths", range(0, 60, 6))
def test_a_joiner_goes_on_alone_from_what_it_copied(tenths: int) -> None:
    """With a version come the parameters that later steps sample from: those who held them may all be gone."""
    world, run = mesh(2, pipeline=LAGGED)
    joiner = world.add((0,))
    world.at(world.now + 0.2, Join(joiner.index))
    world.run(30.0, lambda: joiner.machine is not None and state_at(joiner, run) is not None)
    for node in (0, 1):
        world.at(world.now + tenths / 10, Crash(node))
    world.run(tenths / 10 + 0.1)
    assert finish(world, run, ENDS_S) == undisturbed(LAGGED)


@pytest.mark.parametrize("nth", [0, 1, 2, 3])
def test_a_checkpoint_holds_what_later_steps_sample_from(nth: int) -> None:
    """A run that begins again from its disks ends in the weights of one that was never stopped."""
    world, run = mesh(2, pipeline=SAVING)
    world.when(starts(SaveWork, nth=nth), PowerCut(2.0), 0.3)
    begin_again(world, run, ENDS_S)
    world.run(ENDS_S, ended(world, run))
    assert finish(world, run, ENDS_S) == undisturbed(SAVING)


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_run_is_cancelled_with_several_steps_open(step: int) -> None:
    """All that was done ahead is given up and freed."""
    world, run = mesh(3, pipeline=PIPELINES["lag 2"])
    world.when(starts(ChainWork, step=step), Cancel(1), 0.01)
    world.run(30.0, ended(world, run, "cancelled"))
    finish_cancelled(world, run, ENDS_S)
