"""A task's story over nodes, in a world with nodes that steal and die."""

from __future__ import annotations

from dataclasses import replace

from dflow_protocols.names import NodeId, RunId, TaskKey
from dflow_protocols.pipeline.plan import plan
from dflow_protocols.simulator.faults import Crash, Handicap, sends
from dflow_protocols.simulator.goals import ended, finish
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.simulator.world import World
from dflow_protocols.story import Entry, What, in_order
from dflow_protocols.wire.steps import RecordPut
from tests.support.simulated import ENDS_S, mesh

WIDE = two_steps(partitions=12, leaves=8)


def lines(world: World, run: RunId, task: TaskKey) -> list[tuple[NodeId, Entry]]:
    """What the living tell of a task, in order."""
    steps, told = plan(WIDE, task.step), {}
    for host in world.live():
        entries = [*host.story.dealt(run, task, steps), *host.story.of(run, [task])]
        entries.sort(key=lambda entry: entry.cause)
        told[host.id] = [replace(entry, at=entry.at - host.clock.offset_s) for entry in entries]
    return in_order(told)


def stolen_tasks(world: World, run: RunId) -> list[TaskKey]:
    entries = [entry for host in world.live() for entry in host.story.of(run)]
    return [task for entry in entries if entry.what is What.STOLEN for task in entry.tasks if not task.leaves]


def test_a_stolen_task_is_told_from_deal_to_seal_in_order() -> None:
    """Over three nodes: who it was dealt to, who lent it to whom, where it was claimed and run, who heard, the seal."""
    world, run = mesh(3, pipeline=WIDE)
    world.at(world.now, Handicap("slow", 2))
    world.run(ENDS_S, ended(world, run))
    stolen = stolen_tasks(world, run)
    task = next(task for task in stolen if stolen.count(task) == 1)  # who took it may lend it again before it begins
    told = lines(world, run, task)
    victim = next(node for node, entry in told if entry.what is What.LENT)
    thief = next(node for node, entry in told if entry.what is What.STOLEN)
    whats = [(entry.what, node) for node, entry in told]
    [dealt] = [entry for _, entry in told if entry.what is What.DEALT]
    way = [
        (What.ASKED, thief),
        (What.LENT, victim),
        (What.STOLEN, thief),
        (What.STARTED, thief),
        (What.FINISHED, thief),
        (What.RECORDED, thief),
    ]
    assert dealt.peers == (victim,)
    assert [each for each in whats if each in way][: len(way)] == way
    made = next(entry for node, entry in told if entry.what is What.RECORDED)
    seals = [entry for _, entry in told if entry.what is What.SEALED]
    assert made.records[0] in seals[0].records
    assert whats.index((What.RECORDED, thief)) < [what for what, _ in whats].index(What.SEALED)
    heard = {node for node, entry in told if entry.what is What.SEAL_HEARD}
    assert len(heard) == 2
    claimed = [node for node, entry in told if entry.what is What.CLAIMED]
    assert thief in claimed
    finish(world, run, ENDS_S)


def test_what_a_dead_node_did_is_told_by_those_that_heard_of_it() -> None:
    """Its own memory is gone; its claim and its record were heard."""
    world, run = mesh(3, pipeline=WIDE)
    world.when(sends(RecordPut, 1), Crash())
    world.run(ENDS_S, ended(world, run))
    [dead] = [host.id for host in world.hosts if host.machine is None]
    tasks = {
        task
        for host in world.live()
        for entry in host.story.of(run)
        if entry.what is What.CLAIM_HEARD and dead in entry.peers and not entry.tasks[0].leaves
        for task in entry.tasks
    }
    again = [task for task in tasks if any(entry.what is What.STARTED for _, entry in lines(world, run, task))]
    told = lines(world, run, again[0])
    assert dead not in {node for node, _ in told}
    first_start = next(index for index, (_, entry) in enumerate(told) if entry.what is What.STARTED)
    assert any(entry.what is What.CLAIM_HEARD and dead in entry.peers for _, entry in told[:first_start])


def test_each_node_numbers_its_turns_and_an_entry_names_one_of_them() -> None:
    """So that an entry is joined with the lines of the trace, and in a daemon with those of its log."""
    world, run = mesh(2, pipeline=WIDE)
    world.run(ENDS_S, ended(world, run))
    for host in world.live():
        entries = host.story.of(run)
        causes = [entry.cause for entry in entries]
        assert causes == sorted(causes)
        assert 0 < causes[0] <= causes[-1] <= host.turns
        for entry in entries:
            assert (entry.what in (What.BEGAN, What.FINISHED, What.BROKE, What.STOPPED, What.TRIMMED)) == (
                entry.began is not None
            )
            assert entry.began is None or entry.began <= entry.cause
