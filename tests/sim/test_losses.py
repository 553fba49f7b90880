"""Messages that never arrive: any one of them may be lost, and many of them too."""

from __future__ import annotations

from functools import partial

import pytest

from dflow_protocols.membership.timing import Timing
from dflow_protocols.simulator.faults import FillQueue
from dflow_protocols.simulator.goals import ended, finish
from dflow_protocols.simulator.model.files import Answer
from dflow_protocols.simulator.model.work import NOISY, PURE, WILD
from dflow_protocols.simulator.spawn import spawn
from dflow_protocols.simulator.toy import two_steps, with_sizes
from dflow_protocols.simulator.watching.checker import node_of
from dflow_protocols.simulator.world import World
from tests.support.simulated import ENDS_S, mesh, undisturbed_weights

STRIDE = 7  # of the frames of a run, each so-manieth is lost in the short form; the slow one takes every one


def frames_of_a_run() -> range:
    """Numbers of the frames that an undisturbed mesh of three sends from the submit to the end."""
    world, run = mesh(3)
    first = world.network.frames
    finish(world, run, ENDS_S)
    return range(first, world.network.frames)


def lose(frame: int, noise: frozenset[type] = PURE) -> None:
    world, run = mesh(3, noise=noise)
    world.network.lose = frozenset({frame})
    world.run(ENDS_S, ended(world, run))
    assert finish(world, run, ENDS_S) == undisturbed_weights() or noise, f"frame {frame} lost"


def test_any_one_frame_may_be_lost() -> None:
    """Everything is level-triggered: what a lost message would have told is asked for, or derived, again."""
    for index in frames_of_a_run()[::STRIDE]:
        lose(index)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("noise", [PURE, NOISY, WILD], ids=["pure", "noisy", "wild"])
@pytest.mark.parametrize("offset", range(STRIDE))
def test_any_one_frame_at_all_may_be_lost(offset: int, noise: frozenset[type]) -> None:
    """The same for each single frame of the run, whatever the engines do."""
    for index in frames_of_a_run()[offset::STRIDE]:
        lose(index, noise)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.02, 0.15])
def test_a_lossy_network_slows_a_run_and_changes_nothing(seed: int, share: float) -> None:
    """A share of all frames is lost until the end comes in sight, or for twenty seconds."""
    world, run = mesh(3, seed=seed)
    world.network.loss = share
    world.run(20.0)
    assert finish(world, run, ENDS_S) == undisturbed_weights()


@pytest.mark.parametrize("sender", range(4))
def test_what_was_lost_is_said_again_in_seconds_however_patient_a_site_is(sender: int) -> None:
    """For a third of a second no frame of one node arrives. With the times of a WAN each loss cost fifteen seconds: the
    run took 25 to 40, and undisturbed it takes 8."""
    times = Timing.wan()
    world = World(partial(spawn, timing=times), nodes=5, seeds=tuple(range(5)))
    world.run(times.stable_s + 5.0)
    run, began = world.submit(0, with_sizes(two_steps(), 4, 12, 8)), world.now
    for to in range(5):
        if to != sender:
            world.at(began + 0.7, FillQueue(sender, to, 0.3))
    world.expect(ENDS_S, ended(world, run), "it ends")
    assert world.now - began < 22.0


@pytest.mark.parametrize("seed", range(4))
def test_losses_and_noise_mix_nothing(seed: int) -> None:
    """Each redone task differs from its first run here, so anything joined by name would show."""
    world, run = mesh(4, seed=seed, noise=NOISY)
    world.network.loss = 0.1
    world.run(20.0)
    finish(world, run, ENDS_S)


@pytest.mark.parametrize("seed", range(4))
def test_what_a_node_says_of_itself_is_known_to_all_though_most_frames_are_lost(seed: int) -> None:
    """A change is told until it is acknowledged. What is said last here is lost as likely as not, and never changes
    again: who counted it as told would leave the others with what was said before."""
    lacks = [f"{count} of 6 files are nowhere" for count in range(6, 0, -1)]
    script = tuple(Answer(1.0 + at / 2, lacking) for at, lacking in enumerate(lacks))
    world, run = mesh(3, seed=seed, files=(script,) * 3)
    world.run(1.0)
    world.network.loss = 0.6
    world.run(3.0)
    world.network.loss = 0.0
    world.run(10.0)
    for host in world.hosts:
        ability, me = node_of(host).runs[run].state.ability, host.id
        for other in world.hosts:
            assert set(ability.withdrawn_at(other.id, me).values()) == {lacks[-1]}, (me, other.id)
