"""Rollouts of whatever version there is: steps overlap, nothing is older than it may be, and all that is sealed counts
once. (Whatever breaks: test_behind.py.)"""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest

from dflow_protocols.events import Action, Advanced, Event, Start
from dflow_protocols.pipeline.plan import plan
from dflow_protocols.simulator.faults import Crash, Trigger
from dflow_protocols.simulator.goals import ended, finish, node
from dflow_protocols.simulator.model.host import Host
from dflow_protocols.simulator.toy import (
    actor_critic,
    two_models,
    two_steps,
    warm_then_two,
    with_async,
    with_kept_reference,
    with_old_policy,
    with_reference,
    with_segments,
    with_sizes,
    with_updates,
)
from dflow_protocols.work import ChainWork
from tests.support.simulated import ENDS_S, NOISES, mesh

FOUR = with_sizes(two_steps(), 4, 5, 4)
LOOSE = with_async(FOUR, 2)
SEGMENTS = with_segments(FOUR, 2)
UPDATES = with_old_policy(actor_critic())
PIPELINES = {
    "staleness 1": with_async(FOUR, 1),
    "staleness 2": LOOSE,
    "longer than the run": with_async(two_steps(), 8),
    "after a warm-up": with_async(warm_then_two(), 1),
    "two models": with_async(two_models(), 1),
    "scored by another model": with_async(with_reference(FOUR), 2),
    "scored by what the policy began as": with_async(with_kept_reference(FOUR, 0), 2),
    "scored by what a warm-up led to": with_async(with_kept_reference(warm_then_two(), 1), 1),
    "by segments": SEGMENTS,
    "several updates": with_async(UPDATES, 1),
    "several updates by segments": with_segments(UPDATES, 2),
    "more mini-batches than groups": with_async(
        with_old_policy(with_updates(with_sizes(two_steps(), 3, 2, 2), 1, 8)), 1
    ),
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
    pipeline = PIPELINES[name]
    most = pipeline.max_staleness
    oldest = {step: plan(pipeline, step).oldest for step in seen.steps_at}
    assert all(oldest[step] <= at <= step for step, found in seen.steps_at.items() for at in found)
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


@pytest.mark.parametrize("noise", NOISES)
def test_a_sampler_dies_between_two_segments(noise: frozenset[type]) -> None:
    """What has a record goes on from there, of a version that is newer."""
    world, run = mesh(3, noise=noise, pipeline=SEGMENTS)
    world.when(continues(), Crash(), 0.02)
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
