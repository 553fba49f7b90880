"""A reference that is the policy as a step began with it: it comes with every later version, whatever breaks."""

from __future__ import annotations

import pytest

from dflow_protocols.ranges import shards_of
from dflow_protocols.simulator.drawn.watch import Watch
from dflow_protocols.simulator.faults import Crash, Join, PowerCut, starts
from dflow_protocols.simulator.goals import begin_again, ended, finish, state_at
from dflow_protocols.simulator.invariants import Violation
from dflow_protocols.simulator.model.work import NOISY, PURE
from dflow_protocols.simulator.mutations import MUTATIONS
from dflow_protocols.simulator.mutations.mutation import living
from dflow_protocols.simulator.toy import (
    several_updates,
    two_steps,
    warm_then_two,
    with_adapters,
    with_kept_reference,
    with_lag,
    with_sizes,
)
from dflow_protocols.simulator.watching.runs.purity import Purity
from dflow_protocols.versions.kept import role
from dflow_protocols.work import SaveWork
from tests.support.simulated import ENDS_S, mesh, undisturbed_weights

KEPT = role("reference")
WARM = with_kept_reference(with_sizes(warm_then_two(every=1), 5, 3, 4), 2)
BEHIND = with_lag(with_kept_reference(with_sizes(warm_then_two(every=1), 5, 3, 4), 1), 1)
PIPELINES = {
    "rollouts a step behind": BEHIND,
    "after a warm-up": WARM,
    "from the first step on": with_kept_reference(two_steps(), 0),
    "several updates": with_kept_reference(several_updates(), 0),
    "adapters": with_kept_reference(with_adapters(with_sizes(warm_then_two(), 4, 3, 4)), 2),
}


@pytest.mark.parametrize("nodes", [2, 4])
@pytest.mark.parametrize("name", PIPELINES)
def test_the_weights_follow_from_the_reference_and_not_from_the_mesh(name: str, nodes: int) -> None:
    """The checker holds what a stage reads against the updates that it passed."""
    world, run = mesh(nodes, pipeline=PIPELINES[name], slots=(1, 2))
    Watch(world, (Purity,))
    assert finish(world, run, ENDS_S) == undisturbed_weights(PIPELINES[name])


def test_each_version_has_what_the_policy_was_at_that_step() -> None:
    """By its id: until the policy moves on it is the same shard, which lies in memory once."""
    world, run = mesh(1, pipeline=WARM)
    finish(world, run, ENDS_S)
    own, kept = ([shards_of(state, name) for state in world.saved.values()] for name in ("params:policy", KEPT))
    assert len(set(own)) == 5
    assert kept == [own[0], own[1], own[1], own[1], own[1]]


@pytest.mark.parametrize("noise", [PURE, NOISY], ids=["pure", "noisy"])
def test_who_comes_late_has_the_reference_of_the_others(noise: frozenset[type]) -> None:
    """A node that was gone while the reference was made copies it with the version, and may be the only one left."""
    for victim in range(3):
        world, run = mesh(3, pipeline=WARM, noise=noise)
        world.at(world.now + 1.0, Crash(victim, 6.0))
        weights = finish(world, run, ENDS_S)
        assert noise or weights == undisturbed_weights(WARM)


@pytest.mark.parametrize("name", ["after a warm-up", "rollouts a step behind"])
@pytest.mark.parametrize("tenths", range(0, 60, 10))
def test_a_joiner_goes_on_alone_from_what_it_copied(tenths: int, name: str) -> None:
    """With a version comes the reference that all later steps ask: those who made it may all be gone."""
    world, run = mesh(2, pipeline=PIPELINES[name])
    joiner = world.add((0,))
    world.at(world.now + 0.2, Join(joiner.index))
    world.run(30.0, lambda: joiner.machine is not None and state_at(joiner, run) is not None)
    for node in (0, 1):
        world.at(world.now + tenths / 10, Crash(node))
    world.run(tenths / 10 + 0.1)
    assert finish(world, run, ENDS_S) == undisturbed_weights(PIPELINES[name])


@pytest.mark.parametrize("name", ["after a warm-up", "rollouts a step behind"])
@pytest.mark.parametrize("nth", [0, 2, 3, 5])
def test_a_checkpoint_holds_the_reference(nth: int, name: str) -> None:
    """A run that begins again from its disks ends in the weights of one that was never stopped."""
    world, run = mesh(2, pipeline=PIPELINES[name])
    world.when(starts(SaveWork, nth=nth), PowerCut(2.0), 0.3)
    begin_again(world, run, ENDS_S)
    world.run(ENDS_S, ended(world, run))
    assert finish(world, run, ENDS_S) == undisturbed_weights(PIPELINES[name])


def test_a_reference_that_moves_with_its_policy_is_noticed() -> None:
    """Nodes that all make the same mistake agree with each other, so the checker works out what was due."""
    with living(MUTATIONS["a_reference_moves_with_its_policy"]):
        world, run = mesh(2, pipeline=WARM)
        with pytest.raises(Violation):
            finish(world, run, ENDS_S)
