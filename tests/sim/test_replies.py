"""Two policies of one step: both are trained on one chain, of which each reads a part, whoever stops in between."""

from __future__ import annotations

import pytest

from dflow_protocols.events import Action, Event, Start
from dflow_protocols.simulator.faults import Crash, Pause, When
from dflow_protocols.simulator.goals import ended, finish
from dflow_protocols.simulator.model.host import Host
from dflow_protocols.simulator.toy import two_policies
from dflow_protocols.work import BlockWork, ChainWork
from tests.support.simulated import ENDS_S, NOISES, mesh, undisturbed_weights

TALK = two_policies()  # two steps of two updates
PARTITIONS = 5


class Begun:
    """A watcher of which calls were begun, and of what each training's read."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.read: dict[str, set[str]] = {}

    def saw(self, host: Host, action: Action) -> None:
        match action:
            case Start(work=ChainWork() as work):
                self.calls.append(tuple(work.stages))
            case Start(work=BlockWork() as work):
                self.read.setdefault(work.stage, set()).update(name for _, name, _ in work.inputs)

    def heard(self, host: Host, event: Event) -> None:
        """Of no account."""

    def dies(self, host: Host) -> None:
        """Of no account."""


@pytest.mark.parametrize("noise", NOISES)
def test_each_policy_is_trained_on_what_it_said(noise: frozenset[type]) -> None:
    """Each partition is said once and replied to once, and of what came of it a training reads its own part."""
    world, run = mesh(3, pipeline=TALK, noise=noise)
    begun = Begun()
    world.watch(begun)
    weights = finish(world, run, ENDS_S)
    assert noise or weights == undisturbed_weights(TALK)
    assert begun.read == {
        "theirs": {"answer.rollout", "adv.advantage"},
        "learn": {"roll.rollout", "ours.advantage"},
    }
    for call in (("roll",), ("answer", "score", "adv", "ours")):
        assert begun.calls.count(call) >= 2 * PARTITIONS


@pytest.mark.parametrize("version", range(1, 4))
def test_a_node_may_die_between_the_updates_of_two_policies(version: int) -> None:
    """The second one's manifest names the parts of the chain that it reads, as they were sealed for the first."""
    for which in range(3):
        world, run = mesh(3, pipeline=TALK, seed=which)
        world.plan(When("advance", version, node=which), Crash(which))
        world.run(ENDS_S, ended(world, run))
        assert finish(world, run, ENDS_S) == undisturbed_weights(TALK)


def test_a_node_may_die_between_what_is_said_and_the_reply() -> None:
    """What was said and copied is replied to by another node; what was not is said again."""
    for calls in range(5):
        world, run = mesh(3, pipeline=TALK)
        world.plan(When("start chain_work", calls, node=1), Crash(1, 1.0))
        world.run(ENDS_S, ended(world, run))
        assert world.hosts[1].lives == 2
        assert finish(world, run, ENDS_S) == undisturbed_weights(TALK)


@pytest.mark.parametrize("noise", NOISES)
def test_a_node_may_stall_between_the_updates_of_two_policies(noise: frozenset[type]) -> None:
    """It copies the version that the others made meanwhile."""
    world, run = mesh(3, pipeline=TALK, noise=noise)
    world.plan(When("advance", 1, node=1), Pause(8.0, 1))
    weights = finish(world, run, ENDS_S)
    assert noise or weights == undisturbed_weights(TALK)
