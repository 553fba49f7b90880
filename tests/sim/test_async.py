"""Rollouts of whatever version there is: steps overlap, nothing is older than it may be, and all that is sealed counts
once, whatever breaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count

import pytest

from dflow_protocols.events import Action, Advanced, Event, Start
from dflow_protocols.simulator.faults import BreakEngine, Cancel, Crash, Fault, Join, PowerCut, Split, Trigger, starts
from dflow_protocols.simulator.goals import begin_again, ended, finish, finish_cancelled, node, state_at
from dflow_protocols.simulator.model.host import Host
from dflow_protocols.simulator.toy import (
    two_models,
    two_steps,
    warm_then_two,
    with_async,
    with_reference,
    with_segments,
    with_sizes,
)
from dflow_protocols.work import ApplyWork, BlockWork, ChainWork, SaveWork
from tests.support.simulated import ENDS_S, NOISES, mesh

FOUR = with_sizes(two_steps(), 4, 5, 4)
LOOSE = with_async(FOUR, 2)
SEGMENTS = with_segments(FOUR, 2)
SAVING = with_async(replace(FOUR, checkpoint={"every": 1, "keep": 2}), 1)
PIPELINES = {
    "staleness 1": with_async(FOUR, 1),
    "staleness 2": LOOSE,
    "longer than the run": with_async(two_steps(), 8),
    "after a warm-up": with_async(warm_then_two(), 1),
    "two models": with_async(two_models(), 1),
    "scored by another model": with_async(with_reference(FOUR), 2),
    "by segments": SEGMENTS,
}


class Sampled:
    """Which versions the rollouts of each step were begun with, and what was told of it."""

    def __init__(self) -> None:
        self.steps_at: dict[int, list[int]] = {}  # by the step that a rollout is for: those at which a node began it
        self.gaps: list[float] = []

    def saw(self, host: Host, action: Action) -> None:
        if isinstance(action, Start) and isinstance(action.work, ChainWork) and action.work.stages[0] == "roll":
            position = node(host).runs[action.run].state.position
            assert position is not None
            self.steps_at.setdefault(action.work.step, []).append(position.step)
        if isinstance(action, Advanced) and "version_gap_max" in action.metrics:
            self.gaps += [action.metrics["version_gap_min"], action.metrics["version_gap_max"]]

    def heard(self, host: Host, event: Event) -> None:
        """Nothing that matters here."""

    def dies(self, host: Host) -> None:
        """None does."""


@pytest.mark.parametrize("nodes", [1, 2, 4])
@pytest.mark.parametrize("name", PIPELINES)
def test_rollouts_are_of_the_newest_version_there_is(name: str, nodes: int) -> None:
    """Each is begun with what its node works from, and none is older than it may be; what is of an older version than
    the newest counts, and is not done again."""
    world, run = mesh(nodes, pipeline=PIPELINES[name], slots=(1, 2))
    world.watch(seen := Sampled())
    finish(world, run, ENDS_S)
    most = PIPELINES[name].max_staleness
    assert all(step - most <= at <= step for step, found in seen.steps_at.items() for at in found)
    pipeline = PIPELINES[name]
    for step, found in seen.steps_at.items():
        most_begun = 2 * pipeline.stage("roll").config["partitions"]  # what is stolen from a queue was begun twice
        assert len(found) < most_begun, f"step {step} is sampled again"
    is_ahead = [at < step for step, found in seen.steps_at.items() for at in found]
    assert nodes == 1 or any(is_ahead), "nothing was sampled ahead"
    assert seen.gaps
    assert 0 <= min(seen.gaps) <= max(seen.gaps) <= most


def continues(nth: int = 2) -> Trigger:
    """When for the `nth` time (from 0) a second segment is begun."""
    begun = count()

    def happens(who: int, performed: int, action: Action) -> bool:
        work = action.work if isinstance(action, Start) else None
        return isinstance(work, ChainWork) and work.stages == ("roll_2",) and next(begun) == nth

    return happens


MOMENTS: dict[str, Callable[[], tuple[Trigger, Fault]]] = {
    "in a rollout ahead": lambda: (starts(ChainWork, step=1), Crash()),
    "in a rollout two steps ahead": lambda: (starts(ChainWork, step=2), Crash()),
    "as the version is applied that others sample from": lambda: (starts(ApplyWork, step=0), Crash()),
    "in a leaf": lambda: (starts(BlockWork, step=1), Crash()),
    "and comes back": lambda: (starts(ApplyWork, step=1), Crash(None, 1.0)),
    "between two segments": lambda: (continues(), Crash()),
    "or its engine alone": lambda: (starts(ChainWork, step=2), BreakEngine(2)),
    "or is cut off": lambda: (starts(BlockWork, step=1), Split((1,), 8.0)),
}


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("nodes", [3])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_sampler_dies(moment: str, nodes: int, noise: frozenset[type]) -> None:
    """What it did ahead is dealt again, of a version that is newer; what has a record goes on from there. The world
    holds each group to be trained once."""
    trigger, fault = MOMENTS[moment]()
    world, run = mesh(nodes, noise=noise, pipeline=SEGMENTS)
    world.when(trigger, fault, 0.02)
    world.run(ENDS_S, ended(world, run))
    finish(world, run, ENDS_S)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("seconds", [3.0, 12.0])
def test_two_halves_part_at_a_version_that_was_sampled_from(seconds: float, noise: frozenset[type]) -> None:
    """What the losing half sampled counts for nothing on the other chain, unless it is of what both have."""
    for begins_s in (0.7, 1.6, 2.5):
        world, run = mesh(4, noise=noise, pipeline=LOOSE)
        world.run(begins_s)
        world.at(world.now, Split((0, 1), seconds))
        world.run(seconds + 0.1)
        finish(world, run, ENDS_S)


@pytest.mark.parametrize("tenths", range(0, 60, 12))
def test_a_joiner_goes_on_alone_from_what_it_copied(tenths: int) -> None:
    """It knows the names of the versions before, and so what was sampled from them counts where it is at hand."""
    world, run = mesh(2, pipeline=LOOSE)
    joiner = world.add((0,))
    world.at(world.now + 0.2, Join(joiner.index))
    world.run(30.0, lambda: joiner.machine is not None and state_at(joiner, run) is not None)
    for each in (0, 1):
        world.at(world.now + tenths / 10, Crash(each))
    world.run(tenths / 10 + 0.1)
    finish(world, run, ENDS_S)


@pytest.mark.parametrize("nth", [0, 1, 2])
def test_a_run_begins_again_from_its_disks(nth: int) -> None:
    """What was sampled ahead is gone with the memory, and is sampled again."""
    world, run = mesh(2, pipeline=SAVING)
    world.when(starts(SaveWork, nth=nth), PowerCut(2.0), 0.3)
    begin_again(world, run, ENDS_S)
    world.run(ENDS_S, ended(world, run))
    finish(world, run, ENDS_S)


def test_who_is_left_goes_on_with_the_steps_ahead_too() -> None:
    """They were dealt when the others lived: a person who says that those will not come back speaks for all of it."""
    world, run = mesh(4, pipeline=replace(LOOSE, steps=6, on_split="pause_minority"))
    world.run(1.0)
    for each in (1, 2, 3):
        world.at(world.now, Crash(each))
    world.run(30.0)
    world.resume(0, run)
    finish(world, run, ENDS_S)


@pytest.mark.parametrize("step", [0, 2])
def test_a_run_is_cancelled_with_several_steps_open(step: int) -> None:
    """All that was done ahead is given up and freed."""
    world, run = mesh(3, pipeline=LOOSE)
    world.when(starts(ChainWork, step=step), Cancel(1), 0.01)
    world.run(30.0, ended(world, run, "cancelled"))
    finish_cancelled(world, run, ENDS_S)
