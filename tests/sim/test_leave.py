"""Nodes that are asked to leave: from then on nobody counts on them, however long they take.

What they hand over is looked at in every world (`simulator/watching/keeping.py`).
"""

from __future__ import annotations

import pytest

from dflow_protocols.events import DrainRequested
from dflow_protocols.names import RunId
from dflow_protocols.simulator.faults import Handicap, Join, Leave, starts
from dflow_protocols.simulator.goals import finish, node
from dflow_protocols.simulator.toy import warm_then_two
from dflow_protocols.simulator.world import World
from dflow_protocols.work import ChainWork, SaveWork
from tests.support.simulated import ENDS_S, mesh, undisturbed_weights

STAYS_S = 30.0  # it is given so long; it takes as long as it has something to save or to hand over
SOON_S = 0.1  # virtual seconds, in which all hear of it: half of what a partition takes
PIPELINE = warm_then_two()


def has_ended(world: World, run: RunId, leaver: int) -> bool:
    """At all that stay."""
    known = [node(host).runs.get(run) for host in world.hosts if host.index != leaver]
    return all(each is not None and each.has_ended for each in known)


@pytest.mark.parametrize("leaver", range(4))
def test_the_end_lies_on_two_disks_that_stay(leaver: int) -> None:
    """A run is over when its last version is on two disks: one would go with the host that is about to be off."""
    world, run = mesh(4, pipeline=PIPELINE)
    world.when(starts(SaveWork, node=leaver), Leave(leaver, STAYS_S))
    world.expect(ENDS_S, lambda: has_ended(world, run, leaver), "the run is over")
    disks = [host.disk.saved.values() for host in world.hosts if host.index != leaver]
    assert sum(any(saved.header.step == PIPELINE.steps for saved in disk) for disk in disks) >= 2


def leaving_slowly() -> tuple[World, RunId, int]:
    """A node that is at work is asked to leave, and saves what it holds, in half a second."""
    world, run = mesh(4, pipeline=PIPELINE)
    leaver = 1  # of the first two in the order of those that save
    world.at(0.0, Handicap("slow", leaver))
    world.when(starts(ChainWork, 2, node=leaver), Leave(leaver, STAYS_S))
    runs = node(world.hosts[leaver]).runs
    world.expect(ENDS_S, lambda: run in runs and runs[run].state.is_leaving, "it leaves")
    return world, run, leaver


def test_who_leaves_is_on_duty_to_nobody_while_it_is_still_there() -> None:
    """To save a large version takes minutes; each step would be dealt to it, and wait until it is gone."""
    world, _, leaver = leaving_slowly()
    world.run(SOON_S)
    assert not node(world.hosts[leaver]).has_left
    others = [node(host) for host in world.hosts if host.index != leaver]
    assert {other.membership.drained() for other in others} == {frozenset((world.hosts[leaver].id,))}


def test_who_leaves_takes_no_work_again_whatever_a_client_asks() -> None:
    """It would be dealt some, start none of it, and be gone."""
    world, _, leaver = leaving_slowly()
    host = world.hosts[leaver]
    world.deliver(host, DrainRequested(1, False))
    world.run(SOON_S)
    assert node(host).membership.drained() == {host.id}


def test_who_left_works_again_when_it_is_started_anew() -> None:
    """What others took it for ends with its life: it is not kept, as for one that a person drained."""
    world, run, leaver = leaving_slowly()
    world.run(2.0)
    world.at(world.now, Join(leaver))
    assert finish(world, run, ENDS_S) == undisturbed_weights(PIPELINE)
    assert {node(host).membership.drained() for host in world.hosts} == {frozenset()}
