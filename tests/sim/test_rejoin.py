"""A node that slept acts on nothing that it believed before: it asks first, and then follows."""

from __future__ import annotations

from typing import Any

import pytest

from dflow_protocols.events import Action, Send, Start
from dflow_protocols.simulator.faults import BreakEngine, Crash, Leap, Pause
from dflow_protocols.simulator.goals import ended, finish, node
from dflow_protocols.simulator.model.work import NOISY, PURE
from dflow_protocols.simulator.world import World
from dflow_protocols.wire.steps import ClaimPut, SealPut
from tests.support.simulated import ENDS_S, mesh, undisturbed_weights

SLEEP_S = 30.0
SLEEPER = 1


def watch_for_acts(world: World) -> tuple[list[Any], list[float]]:
    """What the sleeper does from now on before it was told what happened, and when it did not know."""
    acts: list[Any] = []  # answers to what lay in the inbox are none: they are facts
    apart: list[float] = []

    def watch(who: int, _: int, action: Action) -> bool:
        if who == SLEEPER and node(world.hosts[SLEEPER]).membership.is_rejoining:
            apart.append(world.now)
            messages = action.message.messages if isinstance(action, Send) else (action,)
            acts.extend(m for m in messages if isinstance(m, Start) or (isinstance(m, ClaimPut) and m.units))
            acts.extend(m for m in messages if isinstance(m, SealPut) and not m.settled)
        return False

    world.when(watch, Crash())
    return acts, apart


@pytest.mark.parametrize("noise", [PURE, NOISY], ids=["pure", "noisy"])
@pytest.mark.parametrize("tenths", range(2, 26, 4))
def test_who_slept_does_nothing_before_it_heard_what_happened(tenths: int, noise: frozenset[type]) -> None:
    """Every turn looks like its own and every claim expired; to act on that would fork the step and do work twice."""
    world, run = mesh(3, noise=noise)
    sleeper = world.hosts[SLEEPER]
    acts, apart = watch_for_acts(world)
    world.at(world.now + tenths / 10, Pause(SLEEP_S, SLEEPER))
    woken = world.now + tenths / 10 + SLEEP_S
    world.run(tenths / 10 + SLEEP_S + 0.001)
    assert world.run(10.0, lambda: bool(apart)), "it notices that it slept"
    assert world.run(10.0, lambda: not node(sleeper).membership.is_rejoining), "somebody tells it"
    assert acts == []
    assert world.now - woken < 1.0
    weights = finish(world, run, ENDS_S)
    assert noise or weights == undisturbed_weights()


@pytest.mark.parametrize("hundredths", [40, 50, 60])
def test_who_slept_repeats_no_claim_either_that_was_due_again_when_it_fell_asleep(hundredths: int) -> None:
    """What is said again is as old as the sleep: the others have done that work since."""
    world, run = mesh(3, slots=(3,))
    acts, apart = watch_for_acts(world)
    world.at(world.now + hundredths / 100, Leap(SLEEP_S, SLEEPER))
    world.run(hundredths / 100 + 1.0)
    assert apart, "it notices that it slept"
    assert acts == []
    finish(world, run, ENDS_S)


def test_who_slept_claims_nothing_either_because_a_work_broke_meanwhile() -> None:
    """Of a work that came to nothing others are told by what is still claimed: as of before the sleep."""
    world, run = mesh(3, slots=(3,))
    acts, apart = watch_for_acts(world)
    world.at(world.now + 0.6, BreakEngine(1, node=SLEEPER))
    world.at(world.now + 0.61, Pause(SLEEP_S, SLEEPER))
    world.run(SLEEP_S + 1.6)
    assert apart, "it notices that it slept"
    assert acts == []
    finish(world, run, ENDS_S)


def test_who_slept_and_finds_nobody_goes_on_alone() -> None:
    """The others lost power meanwhile: one try of all it knew, then the run is its own."""
    world, run = mesh(3)
    world.at(world.now + 1.0, Pause(SLEEP_S, SLEEPER))
    for index in (0, 2):
        world.at(world.now + 1.5, Crash(index))
    world.run(SLEEP_S + 1.1)
    assert node(world.hosts[SLEEPER]).membership.is_rejoining
    world.expect(ENDS_S, ended(world, run), "it ends the run alone")
    assert finish(world, run, ENDS_S) == undisturbed_weights()


def test_the_only_node_goes_on_as_if_nothing_had_been() -> None:
    """There is nobody to ask, and no time to lose."""
    world, run = mesh(1)
    world.at(world.now + 1.0, Pause(SLEEP_S, 0))
    world.run(SLEEP_S + 1.01)
    assert not node(world.hosts[0]).membership.is_rejoining
    assert finish(world, run, ENDS_S) == undisturbed_weights()
