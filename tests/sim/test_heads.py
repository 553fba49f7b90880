"""Two versions of one step: which is kept, who gives up what it has, and who goes on without what it cannot get."""

from __future__ import annotations

from functools import cache

import pytest

from dflow_protocols.events import Action, Send
from dflow_protocols.names import RunId, Slice, TaskKey
from dflow_protocols.pipeline.spec import Pipeline
from dflow_protocols.simulator.faults import Handicap, Pause, Split, sends, starts
from dflow_protocols.simulator.goals import ended, finish, node
from dflow_protocols.simulator.model.work import NOISY, WILD
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.simulator.world import World
from dflow_protocols.wire.steps import Header, RecordPut, SealPut
from dflow_protocols.work import SliceWork
from tests.support.simulated import ENDS_S, first_time, mesh

BOTH = pytest.mark.parametrize("noise", [NOISY, WILD], ids=["noisy", "wild"])


@cache
def steps(count: int) -> Pipeline:
    return Pipeline.from_dict(two_steps().to_dict() | {"steps": count})


def first_made(world: World, index: int) -> str:
    """The version after the first step that a node made itself."""
    return next(
        seen.head.version for who, seen in world.advanced if who == index and seen.head.step == 1 and not seen.is_copied
    )


def own(world: World, index: int, run: RunId) -> Header:
    header = node(world.hosts[index]).runs[run].state.versions.own
    assert header is not None
    return header


@BOTH
@pytest.mark.parametrize("nodes", [2, 3])
def test_two_updates_of_a_step_are_applied_and_one_is_kept(nodes: int, noise: frozenset[type]) -> None:
    """Who sealed the first is cut off as it tells of it, and applies it; the others make another and apply that."""
    sealer, _ = first_time(sends(SealPut, where=lambda put: put.seal.kind == "update"), nodes, noise)
    world, run = mesh(nodes, noise=noise)
    world.when(sends(SealPut, where=lambda put: put.seal.kind == "update"), Split((sealer,), 10.0))
    world.run(12.0)
    assert first_made(world, sealer) != first_made(world, (sealer + 1) % nodes)
    finish(world, run, ENDS_S)


@BOTH
def test_two_owners_publish_other_bytes_of_one_slice(noise: frozenset[type]) -> None:
    """One stalls over it until another has it, and tells of its own when it wakes: an update takes one of the two."""
    world, run = mesh(3, noise=noise)
    published: dict[tuple[TaskKey, tuple[str, ...]], set[str]] = {}  # of one task with the same inputs

    def listens(who: int, performed: int, action: Action) -> bool:
        for message in action.message.messages if isinstance(action, Send) else ():
            for record in message.records if isinstance(message, RecordPut) else ():
                published.setdefault((record.task, record.inputs), set()).add(record.id)
        return False

    world.when(listens, Pause(0.0))
    world.when(starts(SliceWork), Pause(4.0), after_s=0.005)
    world.run(ENDS_S, ended(world, run))
    assert any(len(ids) > 1 for (task, _), ids in published.items() if isinstance(task.part, Slice))
    finish(world, run, ENDS_S)


@BOTH
def test_a_head_loses_though_its_holder_freed_what_came_before_it(noise: frozenset[type]) -> None:
    """It cannot go back to where the branches part, and need not: it copies the winner's version."""
    world, run = mesh(4, noise=noise, pipeline=steps(8))
    world.run(1.0)
    before = own(world, 0, run)
    world.at(world.now, Split((0,), 40.0))
    world.run(40.0, lambda: own(world, 0, run).step >= before.step + 3)
    lost, held = own(world, 0, run), node(world.hosts[0]).runs[run].state.versions.held
    assert lost.step >= before.step + 3
    assert before.id not in held
    finish(world, run, ENDS_S)


@BOTH
def test_a_better_head_that_nobody_can_fetch_stops_nobody(noise: frozenset[type]) -> None:
    """Its holder serves no byte: the others set it aside, and go on with what they have."""
    world, run = mesh(3, noise=noise, pipeline=steps(8))
    world.run(1.0)
    world.at(world.now, Handicap("mute", 0))
    for slow in (1, 2):
        world.at(world.now, Handicap("slow", slow))
    world.at(world.now, Split((0,), 40.0))
    world.run(40.0, lambda: own(world, 0, run).step >= own(world, 1, run).step + 2)
    ahead, behind = own(world, 0, run), own(world, 1, run)
    assert ahead.step >= behind.step + 2
    world.calm()
    world.expect(30.0, lambda: own(world, 1, run).step > behind.step, "it goes on though it hears of a better head")
    assert not any(who and seen.head.version == ahead.id for who, seen in world.advanced), "somebody fetched it"
    finish(world, run, ENDS_S)
