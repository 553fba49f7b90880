"""Devices that fail under a daemon that lives: others take its work at once, and it stays for all that needs none."""

from __future__ import annotations

import pytest

from dflow_protocols.events import Action, Start
from dflow_protocols.simulator.faults import Crash, Leave, LoseDevices, starts
from dflow_protocols.simulator.goals import ended, finish, node
from dflow_protocols.simulator.model.work import PURE, WILD
from dflow_protocols.simulator.toy import warm_then_two
from dflow_protocols.work import BlockWork, ChainWork, InitWork, Work, is_host_work
from tests.support.simulated import ENDS_S, mesh, undisturbed_weights

NEVER = None


@pytest.mark.parametrize("noise", [PURE, WILD], ids=["pure", "wild"])
@pytest.mark.parametrize("host_slots", [0, 1])
@pytest.mark.parametrize("work", [InitWork, ChainWork, BlockWork])
@pytest.mark.parametrize("nodes", [2, 4])
def test_a_node_without_a_device_leaves_its_work_to_others(
    nodes: int, work: type, host_slots: int, noise: frozenset[type]
) -> None:
    """It is given nothing more that needs one, and the run ends with the weights of an undisturbed one."""
    world, run = mesh(nodes, noise=noise, host_slots=(host_slots,), slots=(2, 1))
    lost: list[int] = []
    late: list[Work] = []

    def note(node: int, performed: int, action: Action) -> bool:
        if isinstance(action, Start) and lost == [node] and not is_host_work(action.work):
            late.append(action.work)
        if isinstance(action, Start) and isinstance(action.work, work) and not lost:
            lost.append(node)
            return True
        return False

    world.when(note, LoseDevices(NEVER))
    world.run(ENDS_S, ended(world, run))
    weights = finish(world, run, ENDS_S)
    assert lost
    assert late == []
    assert noise or weights == undisturbed_weights()


@pytest.mark.parametrize("work", [ChainWork, BlockWork])
@pytest.mark.parametrize("nodes", [1, 3])
def test_a_device_that_answers_again_is_worked_with_again(nodes: int, work: type) -> None:
    """A mesh whose only device failed waits for it, and loses nothing."""
    world, run = mesh(nodes, host_slots=(1,))
    world.when(starts(work, node=0), LoseDevices(10.0))
    world.run(ENDS_S, ended(world, run))
    assert finish(world, run, ENDS_S) == undisturbed_weights()


def test_a_daemon_that_is_restarted_has_its_device_back() -> None:
    """Nothing of the loss is kept: who mends a host starts its daemon again."""
    world, run = mesh(1, host_slots=(1,))
    world.when(starts(BlockWork), LoseDevices(NEVER))
    world.when(starts(BlockWork), Crash(None, 5.0), 20.0)
    world.run(ENDS_S, ended(world, run))
    assert finish(world, run, ENDS_S) == undisturbed_weights()


def test_who_leaves_without_a_device_saves_first() -> None:
    """The remedy for a lost GPU begins with a stop of its daemon: a checkpoint is written without one."""
    world, run = mesh(1, host_slots=(1,), pipeline=warm_then_two())
    state = node(world.hosts[0]).runs[run].state
    world.run(ENDS_S, lambda: state.versions.own is not None and state.versions.own.step >= 3)
    world.at(world.now, LoseDevices(NEVER, 0))
    world.at(world.now + 1.0, Leave(0, 5.0))
    world.run(10.0)
    assert "checkpoint.saved" in {report.name for _, report in world.reports}


def test_a_run_of_which_nobody_has_a_device_says_that_it_stands() -> None:
    """Else a user would look at a step that never ends, and at nothing that says why."""
    world, _ = mesh(2, host_slots=(1,))
    for host in world.hosts:
        world.at(world.now, LoseDevices(NEVER, host.index))
    world.run(ENDS_S, lambda: any(report.name == "run.stalled" for _, report in world.reports))
    assert any(report.name == "run.stalled" for _, report in world.reports)
