"""What is on disks: a save that takes longer than several steps, and what a host has that was away at the end."""

from __future__ import annotations

from dataclasses import replace

from dflow_protocols.names import Once, TaskKey
from dflow_protocols.run_state.run_state import Call
from dflow_protocols.simulator.faults import Pause
from dflow_protocols.simulator.goals import ended, finish, node
from dflow_protocols.simulator.toy import warm_then_two
from dflow_protocols.work import SaveWork
from tests.support.simulated import ENDS_S, mesh

HANGING = 1_000_000  # a call of no engine here


def test_a_save_may_outlive_what_its_version_leads_to() -> None:
    """Its node slept and copied a version that is many steps further: the save still has its header, and its bytes."""
    world, run = mesh(3, pipeline=replace(warm_then_two(every=1), steps=9))
    host = world.hosts[2]
    book = node(host).runs
    world.expect(ENDS_S, lambda: run in book and book[run].state.versions.own is not None, "version 0 is here")
    world.expect(ENDS_S, lambda: book[run].state.versions.own.step == 1, "version 1 is here")  # type: ignore[union-attr]
    header = book[run].state.versions.own
    assert header is not None
    save = SaveWork(run, header)
    book[run].state.calls[HANGING] = Call(TaskKey(1, "checkpoint", Once("save")), save, (), header.id, 0.0, 0, 0)
    held = []

    def look() -> bool:
        if book[run].is_active and book[run].state.committed_step > header.step + 2:
            held.append(all(ref.id in host.store.sizes for _, ref in header.state))
        return not book[run].is_active

    world.at(world.now, Pause(6.0, 2))
    world.expect(ENDS_S, look, "the run ends at the node that slept")
    finish(world, run, ENDS_S)
    assert held
    assert all(held)


def test_who_comes_back_after_the_end_keeps_no_checkpoint_that_newer_ones_replaced() -> None:
    """A third host would have its disk full of them one day: nobody looks at a run that has ended."""
    world, run = mesh(3, pipeline=replace(warm_then_two(every=1), steps=7))
    away = world.hosts[2]

    def steps() -> set[int]:
        return {saved.header.step for saved in away.disk.saved.values()}

    world.expect(ENDS_S, lambda: bool(steps()), "the host has saved something")
    world.kill(away)
    world.expect(ENDS_S, ended(world, run), "the others finish")
    assert max(steps()) < 6
    world.start(away)
    world.expect(ENDS_S, lambda: not steps(), "what it had saved is gone")
    kept = [{saved.header.step for saved in host.disk.saved.values()} for host in world.hosts[:2]]
    assert kept == [{6, 7}, {6, 7}]
