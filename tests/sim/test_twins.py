"""Two processes with one key: the mesh goes on as if there were one, and one of them says nothing more."""

from __future__ import annotations

import pytest

from dflow_protocols.simulator.faults import Clone, Crash, Split
from dflow_protocols.simulator.goals import finish, node
from dflow_protocols.simulator.model.host import Host
from dflow_protocols.simulator.world import World
from tests.support.simulated import ENDS_S, mesh, undisturbed_weights

ORIGINAL = 1
NOTICES_S = 8.0


def processes(world: World) -> tuple[Host, Host]:
    """The original, and the copy once it was made."""
    original = world.hosts[ORIGINAL]
    (copy,) = [host for host in world.hosts if host.id == original.id and host is not original]
    return original, copy


@pytest.mark.parametrize("tenths", range(0, 20, 4))
def test_a_copy_that_starts_beside_its_original_falls_silent_and_the_run_does_not_notice(tenths: int) -> None:
    """Its claims and seals would be taken for the original's, which knows nothing of them."""
    world, run = mesh(3)
    world.at(world.now + tenths / 10, Clone(0.1, None, ORIGINAL))
    world.run(tenths / 10 + 0.2)
    original, copy = processes(world)
    assert world.run(NOTICES_S, lambda: copy.is_silent)
    assert not original.is_silent
    assert finish(world, run, ENDS_S) == undisturbed_weights()
    assert node(world.hosts[0]).membership.alive() == tuple(sorted(world.id_of(index) for index in range(3)))


@pytest.mark.parametrize("tenths", range(0, 20, 4))
def test_an_original_that_returns_when_its_copy_took_its_place_falls_silent(tenths: int) -> None:
    """Whoever has been there for longer is the node by then."""
    world, run = mesh(3)
    world.at(world.now + tenths / 10, Clone(0.1, 2.0, ORIGINAL))
    world.run(tenths / 10 + 2.1)
    original, copy = processes(world)
    assert world.run(NOTICES_S, lambda: original.is_silent)
    assert not copy.is_silent
    assert finish(world, run, ENDS_S) == undisturbed_weights()


def test_two_that_cannot_hear_of_each_other_are_one_again_when_they_can() -> None:
    """Each half of a split mesh has a node of that key, and both work."""
    world, run = mesh(4)
    world.at(world.now + 0.4, Clone(0.2, None, ORIGINAL))
    world.at(world.now + 0.5, Split((0, ORIGINAL), 8.0))
    world.run(8.0)
    original, copy = processes(world)
    assert not original.is_silent
    assert not copy.is_silent
    world.run(0.5)
    assert world.run(NOTICES_S, lambda: copy.is_silent)
    assert finish(world, run, ENDS_S) == undisturbed_weights()


def test_when_the_one_that_spoke_is_gone_the_silent_one_does_not_take_its_place() -> None:
    """It knows nothing of what was done since: a person starts it again, and then it asks."""
    world, _ = mesh(3)
    world.at(world.now + 0.2, Clone(0.1, None, ORIGINAL))
    world.run(NOTICES_S)
    original, copy = processes(world)
    assert copy.is_silent
    world.at(world.now, Crash(ORIGINAL))
    world.at(world.now + 3.0, Crash(copy.index, restart_after_s=1.0))
    world.run(2.9)
    alive = node(world.hosts[0]).membership
    assert original.id not in alive.alive()
    assert world.run(NOTICES_S, lambda: original.id in alive.alive())
    assert not copy.is_silent
