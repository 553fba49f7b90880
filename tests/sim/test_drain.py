"""Drained nodes: they start nothing, hand over what only they have, and are of use again when that is undone.

That nothing is started is looked at in every world: the simulator stops at the first work of a drained node.
"""

from __future__ import annotations

import pytest

from dflow_protocols.events import Action, Send, Start
from dflow_protocols.membership.timing import Timing
from dflow_protocols.names import RunId
from dflow_protocols.simulator.faults import Crash, Drain, Leave, starts
from dflow_protocols.simulator.goals import ended, finish, node
from dflow_protocols.simulator.model.work import PURE
from dflow_protocols.simulator.toy import two_steps, warm_then_two
from dflow_protocols.simulator.world import World
from dflow_protocols.wire.steps import Keep
from dflow_protocols.work import ApplyWork, BlockWork, ChainWork, InitWork, SliceWork, SumWork
from tests.support.simulated import ENDS_S, NOISES, mesh, undisturbed_weights

SUSPICION_S = Timing.local().suspicion_s(3)  # what waits for a node that does nothing waits so long
SOON_S = 20.0  # virtual seconds; a task of the toy takes a tenth


def is_idle(world: World, index: int) -> bool:
    """As people are told."""
    host = world.hosts[index]
    left = node(host).unfinished(host.clock.read(world.now))
    return host.is_drained and not left["tasks"] and not left["shards"]


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("work", [InitWork, ChainWork, BlockWork, SumWork, SliceWork, ApplyWork])
@pytest.mark.parametrize("nodes", [2, 3, 5])
def test_a_node_may_be_drained_at_any_work_and_ended_when_it_is_idle(
    nodes: int, work: type, noise: frozenset[type]
) -> None:
    """What a person does before a host is opened: nothing is lost with it, and the weights are the same."""
    world, run = mesh(nodes, noise=noise, slots=(2,) if work is SumWork else (1,))
    world.when(starts(work, node=nodes - 1), Drain(nodes - 1), 0.01)
    world.expect(SOON_S, lambda: is_idle(world, nodes - 1) or ended(world, run)(), "the drained node is idle")
    world.at(world.now, Crash(nodes - 1))
    weights = finish(world, run, ENDS_S)
    assert noise is not PURE or weights == undisturbed_weights()


def duration_s(world: World, run: RunId) -> float:
    """Virtual seconds from the submit, which was just now."""
    began = world.now
    assert world.run(ENDS_S, ended(world, run))
    return world.now - began


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("nodes", [2, 3, 4])
def test_a_drained_node_holds_nobody_up(nodes: int, step: int) -> None:
    """No unit, seal, copy or commit waits for it: by the virtual clock all goes on as in a mesh without it."""
    without = duration_s(*mesh(nodes - 1))
    for drained in range(nodes):
        world, run = mesh(nodes)
        world.when(starts(ChainWork, step, node=drained), Drain(drained))
        assert duration_s(world, run) < without + SUSPICION_S, f"n{drained}"


def test_others_are_asked_to_keep_what_only_a_drained_node_has() -> None:
    """Else it were idle only when the step is over, and a gradient lost with it."""
    world, run = mesh(2)
    kept: list[float] = []

    def note(index: int, performed: int, action: Action) -> bool:
        if index == 1 and isinstance(action, Send) and any(isinstance(each, Keep) for each in action.message.messages):
            kept.append(world.now)
        return False

    world.when(note, Drain(1))
    world.when(starts(BlockWork, node=1), Drain(1))
    world.run(ENDS_S, ended(world, run))
    assert kept


def test_a_node_that_takes_work_again_gets_some() -> None:
    """Else an undo would be a restart."""
    world, run = mesh(3, pipeline=warm_then_two())
    began: list[bool] = []
    world.when(starts(ChainWork), Drain(2, 1.0))

    def note(index: int, performed: int, action: Action) -> bool:
        if index == 2 and isinstance(action, Start):
            began.append(any(report.name == "membership.undrained" for who, report in world.reports if who == 2))
        return False

    world.when(note, Drain(2))
    world.run(ENDS_S, ended(world, run))
    finish(world, run, ENDS_S)
    assert any(began)


def test_where_all_are_drained_a_run_waits_and_says_so() -> None:
    """It fails nothing: a person took the hosts away, and gives them back."""
    world, run = mesh(2)
    for index in range(2):
        world.when(starts(BlockWork), Drain(index, 60.0))
    world.run(30.0)
    assert all(is_idle(world, index) for index in range(2))
    assert {node(host).runs[run].summary()["blocked"] for host in world.hosts} == {"needs a daemon that is not drained"}
    assert finish(world, run, ENDS_S) == undisturbed_weights()
    assert "run.stalled" not in {report.name for _, report in world.reports}


def test_a_run_that_is_submitted_while_all_are_drained_begins_when_one_is_not() -> None:
    """The first roster has them then: there is nobody else."""
    world, _ = mesh(2)
    for index in range(2):
        world.drain(index, True)
    world.run(1.0)
    run = world.submit(0, two_steps(), nonce="later")
    world.run(10.0)
    assert node(world.hosts[0]).runs[run].state.versions.own is None
    world.drain(1, False)
    assert finish(world, run, ENDS_S) == undisturbed_weights()


def test_a_drained_node_is_drained_after_a_restart() -> None:
    """Who works on a host starts it more than once."""
    world, run = mesh(3)
    world.when(starts(ChainWork), Drain(1))
    world.when(starts(BlockWork), Crash(1, 1.0))
    world.run(ENDS_S, ended(world, run))
    assert node(world.hosts[1]).membership.drained() == {world.hosts[1].id}
    assert node(world.hosts[0]).membership.drained() == {world.hosts[1].id}
    assert finish(world, run, ENDS_S) == undisturbed_weights()


def test_a_site_that_is_drained_and_switched_off_loses_no_step() -> None:
    """Drained nodes have nobody to hand over to but each other: who leaves saves, as ever."""
    world, run = mesh(2, pipeline=warm_then_two())
    state = node(world.hosts[0]).runs[run].state
    world.run(ENDS_S, lambda: state.versions.own is not None and state.versions.own.step >= 3)
    for index in range(2):
        world.at(world.now, Drain(index))
        world.at(world.now + 5.0, Leave(index, 5.0))
    world.run(15.0)
    assert max(saved.header.step for host in world.hosts for saved in host.disk.saved.values()) >= 3
