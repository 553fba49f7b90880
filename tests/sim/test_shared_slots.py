"""Slots that work on several partitions together: what one of them breaks, and who else wants the slot."""

from __future__ import annotations

import pytest

from dflow_protocols.events import Action, Start
from dflow_protocols.names import RunId
from dflow_protocols.simulator.faults import BreakEngine, Crash, LoseDevices, starts
from dflow_protocols.simulator.goals import ended, finish, node
from dflow_protocols.simulator.model.work import PURE, WILD
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.work import ChainWork
from tests.support.simulated import ENDS_S, mesh

TOGETHER = two_steps(partitions=9, at_once=3)


def test_a_node_rests_between_turns_while_its_only_run_has_work_before_its_slots() -> None:
    """What waits there of one run says nothing of another one's seals; and who is alone has nobody to hear from."""
    world, first = mesh(2, pipeline=two_steps(partitions=40))
    here = node(world.hosts[0])
    world.expect(ENDS_S, lambda: here.may_rest, "partitions wait behind what its slot is at")
    second = world.submit(0, two_steps())
    world.expect(ENDS_S, lambda: second in here.runs, "it knows of another run")
    assert here.runs[first].calls.has_waiting
    assert not here.may_rest
    alone, first = mesh(1, pipeline=two_steps(partitions=40))
    here = node(alone.hosts[0])
    alone.expect(ENDS_S, lambda: first in here.runs and here.runs[first].calls.has_waiting, "partitions wait")
    assert not here.may_rest


@pytest.mark.parametrize("noise", [PURE, WILD], ids=["pure", "wild"])
@pytest.mark.parametrize("fault", [BreakEngine(1), BreakEngine(2), Crash(None, 5.0)], ids=["dies", "twice", "crash"])
@pytest.mark.parametrize("nodes", [1, 3])
def test_what_ends_amid_several_partitions_is_done_again(
    nodes: int, fault: BreakEngine | Crash, noise: frozenset[type]
) -> None:
    """Those beside it are stopped, whatever became of it, and the run ends with the weights of an undisturbed one."""
    world, run = mesh(1, pipeline=TOGETHER, noise=noise)
    undisturbed = finish(world, run, ENDS_S)
    world, run = mesh(nodes, pipeline=TOGETHER, noise=noise)
    world.when(starts(ChainWork, nth=4), fault)
    world.run(ENDS_S, ended(world, run))
    weights = finish(world, run, ENDS_S)
    assert noise or weights == undisturbed


def test_a_stream_of_partitions_keeps_no_other_run_from_the_slot() -> None:
    """Each of them would find a seat beside the others for as long as there are some; the other run would wait for the
    end of the rollouts."""
    world, first = mesh(1, pipeline=two_steps(partitions=40, at_once=4))
    begun: list[RunId] = []

    def note(node: int, performed: int, action: Action) -> bool:
        if isinstance(action, Start) and isinstance(action.work, ChainWork):
            begun.append(action.run)
        return False

    world.when(note, LoseDevices())  # never: it only looks
    world.run(0.5)
    before = len(begun)
    assert 0 < before < 20
    second = world.submit(0, two_steps(partitions=8, at_once=4))
    world.run(ENDS_S, ended(world, second))
    assert begun.index(second) - before <= 8, "one batch that had begun, and one after version 0"
    finish(world, first, ENDS_S)
