"""Nodes with little room: what is put off or given up comes about later, and nothing waits for ever."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dflow_protocols.names import RunId
from dflow_protocols.pipeline.spec import Pipeline
from dflow_protocols.run_state.status import yields_to
from dflow_protocols.simulator.faults import Join, Pause
from dflow_protocols.simulator.goals import finish, node
from dflow_protocols.simulator.model.provenance import PARAMETER_BYTES
from dflow_protocols.simulator.model.work import NOISY
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.simulator.world import World
from tests.support.simulated import ENDS_S, mesh

FIRST, SECOND = RunId("a" * 32), RunId("b" * 32)


def gave_way(world: World, run: RunId) -> Callable[[], bool]:
    """Every live node says so."""
    return lambda: all(yields_to(node(host).runs[run].status) is not None for host in world.live())


@pytest.mark.parametrize(
    ("nodes", "room", "seeds"),
    [
        (2, 9, (0, 1, 2)),
        (3, 9, (0, 1, 2)),
        (3, 8, (12,)),  # whose second run fills the room by itself
        *(pytest.param(3, room, tuple(range(8)), marks=pytest.mark.slow) for room in (8, 9, 10)),
    ],
)
def test_two_runs_in_the_room_of_little_more_than_one_both_end_though_a_node_lags(
    nodes: int, room: int, seeds: tuple[int, ...]
) -> None:
    """Each run alone takes up to 6 times its parameters on a node, both together 12; no disk is behind it."""
    shed = 0
    for seed in seeds:
        world, first = mesh(nodes, noise=NOISY, seed=seed)
        for host in world.hosts:
            host.store.limit_bytes = room * PARAMETER_BYTES
        second = world.submit(nodes - 1, two_steps(), nonce="another")
        world.at(world.now + 1.0, Pause(8.0, nodes - 1))
        world.run(10.0)
        finish(world, first, ENDS_S)
        finish(world, second, ENDS_S)
        assert max(host.store.peak_bytes for host in world.hosts) <= room * PARAMETER_BYTES
        shed += sum(len(host.store.shed) for host in world.hosts)
    assert shed, "room was never short: the test shows nothing"


def test_of_two_runs_whose_state_leaves_no_room_for_either_the_later_one_waits_for_the_other() -> None:
    """No state gives way by itself, so both would wait for ever. The later one says why it waits, and goes on from the
    version that it had."""
    world, one = mesh(3, noise=NOISY, seed=7)
    for host in world.hosts:
        host.store.limit_bytes = 8 * PARAMETER_BYTES
    other = world.submit(2, two_steps(), nonce="another")
    earlier, later = sorted((one, other))
    world.at(world.now + 1.0, Pause(8.0, 2))
    world.run(10.0)
    world.calm()
    world.expect(ENDS_S, gave_way(world, later), "the later run gives way")
    told = node(world.hosts[0]).runs[later].summary()
    assert (told["state"], told["blocked"]) == (
        "active",
        f"gave way to run {earlier[:8]}, as there is no room for both",
    )
    finish(world, earlier, ENDS_S)
    finish(world, later, ENDS_S)
    assert not [report for _, report in world.reports if report.name == "run.set_back"]
    assert all(node(host).runs[later].status.attempt == 1 for host in world.hosts)


def test_what_gives_way_while_all_disks_are_full_loses_no_step() -> None:
    """Where stores have no room disks may have none either. It goes on from the version that it had, not from 0."""
    world, one = mesh(3, noise=NOISY, seed=7)
    for host in world.hosts:
        host.store.limit_bytes = 8 * PARAMETER_BYTES
    later = max(one, world.submit(2, two_steps(), nonce="another"))
    world.at(world.now + 1.0, Pause(8.0, 2))
    world.run(10.0)
    for host in world.hosts:
        host.disk.fill()
    world.expect(ENDS_S, gave_way(world, later), "the later run gives way")
    world.run(15.0)
    for host in world.hosts:
        host.disk.make_room()
    for run in (one, later):
        finish(world, run, ENDS_S)
    made = [advanced.head.step for _, advanced in world.advanced if advanced.run == later and not advanced.is_copied]
    assert made.count(0) <= len(world.hosts), "it began again"


def test_an_older_run_that_waits_for_a_host_gives_its_room_to_one_that_can_go_on() -> None:
    """Its rollouts fill the room until somebody joins who may train: they can be made again, and give way to a run
    that comes before it."""
    room, raw = 8 * PARAMETER_BYTES, two_steps(partitions=30).to_dict()
    raw["stages"][3]["requires"] = ["roomy"]
    world, older = mesh(2, pipeline=Pipeline.from_dict(raw))
    for host in world.hosts:
        host.store.limit(room)
    world.run(12.0)
    assert node(world.hosts[0]).runs[older].summary()["blocked"] == "needs `roomy` (stage learn)"
    younger = world.submit(1, two_steps(), nonce="a")
    assert younger < older, "runs come in the order of their ids"
    finish(world, younger, ENDS_S)
    assert all(host.store.shed for host in world.hosts), "room was never short: the test shows nothing"
    joiner = world.add((0,))
    joiner.roles = ("roomy",)
    world.at(world.now, Join(joiner.index))
    world.run(1.0)
    finish(world, older, ENDS_S)
    assert max(host.store.peak_bytes for host in world.hosts[:2]) <= room
