"""Rollouts that are behind by what the spec says: steps overlap, and the weights are the same whoever takes part.
(Whatever breaks: test_behind.py.)"""

from __future__ import annotations

import pytest

from dflow_protocols.events import Action, Advanced, Event, Start
from dflow_protocols.simulator.goals import finish
from dflow_protocols.simulator.model.host import Host
from dflow_protocols.simulator.toy import (
    actor_critic,
    several_updates,
    two_models,
    two_steps,
    warm_then_two,
    with_kept_reference,
    with_lag,
    with_old_policy,
    with_sizes,
)
from dflow_protocols.work import ApplyWork, BlockWork, ChainWork, Work
from tests.support.simulated import ENDS_S, mesh, undisturbed_weights

FOUR = with_sizes(two_steps(), 4, 5, 4)
LAGGED = with_lag(FOUR, 1)
CRITIC = with_lag(actor_critic(), 1)  # its steps begin with versions 0, 4 and 6
PIPELINES = {
    "lag 1": LAGGED,
    "lag 2": with_lag(FOUR, 2),
    "longer than the run": with_lag(two_steps(), 8),
    "after a warm-up": with_lag(warm_then_two(), 1),
    "two models": with_lag(two_models(), 1),
    "several updates": with_lag(several_updates(), 1),
    "a critic that is ahead of the policy": CRITIC,
    "scored by what the policy began as": with_lag(with_kept_reference(FOUR, 0), 2),
    "scored by what a warm-up led to": with_lag(with_kept_reference(warm_then_two(), 1), 1),
    "scored by what a step of several updates began with": with_lag(with_kept_reference(several_updates(), 0), 1),
    "scored by the policy that sampled": with_lag(with_old_policy(actor_critic()), 2),
}


@pytest.mark.parametrize("nodes", [2, 4])
@pytest.mark.parametrize("name", PIPELINES)
def test_the_weights_follow_from_the_lag_and_not_from_the_mesh(name: str, nodes: int) -> None:
    """Which version a step samples from is the spec's to say, however far each node happens to be."""
    world, run = mesh(nodes, pipeline=PIPELINES[name], slots=(1, 2))
    assert finish(world, run, ENDS_S) == undisturbed_weights(PIPELINES[name])


def test_a_lag_makes_other_weights() -> None:
    """It is another algorithm: a step trains on what an older version sampled."""
    assert len({undisturbed_weights(FOUR), undisturbed_weights(LAGGED), undisturbed_weights(PIPELINES["lag 2"])}) == 3


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


def test_the_next_step_is_sampled_amid_the_updates_of_one() -> None:
    """From what that one began with: all of its updates are time in which samplers have something to do. What a step
    samples is of one version, and scored by the same, however far the models are by then."""
    world, run = mesh(3, pipeline=CRITIC, slots=(2,))
    world.watch(seen := Begun())
    finish(world, run, ENDS_S)
    assert {work.step for work in seen.works if isinstance(work, ChainWork) and work.stages[0] == "roll"} == {0, 4, 6}
    assert max(seen.rollouts(4)) < seen.update(3)
    assert max(seen.rollouts(6)) < seen.update(5)


def test_how_far_rollouts_were_behind_is_told_once_a_step() -> None:
    """In steps, whatever number of versions that is."""
    world, run = mesh(2, pipeline=CRITIC)
    world.watch(seen := Gaps())
    finish(world, run, ENDS_S)
    told = {number: gap for number, gap in seen.by_version.items() if gap is not None}
    assert told == {1: 0.0, 5: 1.0, 7: 1.0}
