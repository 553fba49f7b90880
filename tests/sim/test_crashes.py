"""kill -9 of any node between any two of its actions, for good or with a return."""

from __future__ import annotations

import pytest

from dflow_protocols.names import RunId
from dflow_protocols.simulator.faults import Crash, Pause, action
from dflow_protocols.simulator.goals import ended, finish, state_at
from dflow_protocols.simulator.model.work import NOISY, PURE, WILD
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.simulator.world import World
from tests.support.simulated import ENDS_S, mesh, undisturbed_actions, undisturbed_weights

STRIDE = 31  # of the actions of a node; the slow form takes every single one


def survive(world: World, run: RunId, same: bool = True) -> None:
    """The run ends as if nothing had been; unless it died with the submitter before anything was promised."""
    world.run(ENDS_S, ended(world, run))
    submitter = world.hosts[0]
    unheard = all(state_at(host, run) is None for host in world.live())
    if submitter.machine is None and not submitter.replies and unheard:
        return
    weights = finish(world, run, ENDS_S)
    assert not same or weights == undisturbed_weights()


def crash(nodes: int, victim: int, index: int, back: float | None, noise: frozenset[type] = PURE) -> None:
    world, run = mesh(nodes, noise=noise)
    world.when(action(victim, index), Crash(victim, back))
    survive(world, run, same=not noise)


def moments(nodes: int, victim: int) -> range:
    """Each action of a node during an undisturbed run, and a few after it."""
    before, after = undisturbed_actions(nodes)
    return range(before[victim], after[victim])


@pytest.mark.parametrize("back", [None, 0.3, 5.0], ids=["for_good", "back_unnoticed", "back_late"])
@pytest.mark.parametrize("victim", range(3))
def test_any_node_may_die_at_any_moment(victim: int, back: float | None) -> None:
    """No node is special: neither the one submitted to nor the sealer nor a slice's owner."""
    for index in moments(3, victim)[victim::STRIDE]:
        crash(3, victim, index, back)


@pytest.mark.parametrize("victim", range(2))
def test_either_of_two_may_die_at_any_moment(victim: int) -> None:
    """The smallest mesh that has somebody left: every second holder is the last one."""
    for index in moments(2, victim)[victim::STRIDE]:
        crash(2, victim, index, None)


def test_the_only_node_may_be_started_again() -> None:
    """Nobody else remembers anything: what is on the disk must do."""
    for index in moments(1, 0)[:: 2 * STRIDE]:
        crash(1, 0, index, 0.5)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("noise", [PURE, NOISY, WILD], ids=["pure", "noisy", "wild"])
@pytest.mark.parametrize("back", [None, 0.3, 5.0], ids=["for_good", "back_unnoticed", "back_late"])
@pytest.mark.parametrize("victim", range(3))
def test_any_node_may_die_between_any_two_actions(victim: int, back: float | None, noise: frozenset[type]) -> None:
    """The same for every single action, whatever the engines do."""
    for index in moments(3, victim):
        crash(3, victim, index, back, noise)


@pytest.mark.parametrize("victim", range(3))
def test_noise_and_a_crash_mix_nothing(victim: int) -> None:
    """What the dead node made is made again with other bytes while others still hold the old ones."""
    for index in moments(3, victim)[victim :: 2 * STRIDE]:
        crash(3, victim, index, 1.0, NOISY)


@pytest.mark.parametrize("pair", [(0, 1), (1, 2), (2, 3), (3, 0)])
def test_two_of_four_may_die_at_once(pair: tuple[int, int]) -> None:
    """Second holders go with the first ones."""
    for index in moments(4, pair[0])[:: 3 * STRIDE]:
        world, run = mesh(4)
        for victim in pair:
            world.when(action(pair[0], index), Crash(victim))
        survive(world, run)


@pytest.mark.parametrize("noise", [PURE, NOISY], ids=["pure", "noisy"])
@pytest.mark.parametrize("victim", range(3))
def test_any_node_may_stall_at_any_moment(victim: int, noise: frozenset[type]) -> None:
    """SIGSTOP for longer than detection takes: the others go on, and the sleeper wakes to another world."""
    for index in moments(3, victim)[victim :: 3 * STRIDE]:
        world, run = mesh(3, noise=noise)
        world.when(action(victim, index), Pause(6.0, victim))
        survive(world, run, same=not noise)


@pytest.mark.parametrize("wish", ["submit", "cancel"])
def test_a_client_is_answered_though_whoever_was_to_vouch_has_just_died(wish: str) -> None:
    """Its node waits for a second disk while it believes that there is one, and no longer."""
    world, run = mesh(2)
    world.run(0.5)
    world.at(world.now, Crash(1))
    world.run(0.1)
    asked = set(world.hosts[0].replies)
    if wish == "submit":
        world.submit(0, two_steps(), nonce="another")
    else:
        world.cancel(0, run)
    world.expect(10.0, lambda: bool(set(world.hosts[0].replies) - asked), "the client is answered")
    assert [ok for number, (ok, _) in world.hosts[0].replies.items() if number not in asked] == [True]
