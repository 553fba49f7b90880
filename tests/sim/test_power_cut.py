"""A power cut of the whole site: what lies on the disks must do, whatever became of some of them."""

from __future__ import annotations

from functools import cache

import pytest

from dflow_protocols.names import RunId, ShardId
from dflow_protocols.pipeline.spec import Pipeline
from dflow_protocols.run_state.status import FAILED, outcome
from dflow_protocols.simulator.faults import BreakEngine, Join, Leave, Pause, PowerCut, action
from dflow_protocols.simulator.goals import FROM_START_HINT, begin_again, ended, finish, node, state_at
from dflow_protocols.simulator.model.work import NOISY, PURE, SECONDS, WILD
from dflow_protocols.simulator.toy import warm_then_two
from dflow_protocols.simulator.world import World
from dflow_protocols.work import SaveWork
from tests.support.simulated import ENDS_S, mesh

STRIDE = 41  # of a node's actions; the slow form takes every single one
SAVING = warm_then_two(every=1)
SAVING_AT_THE_END = warm_then_two()


@cache
def undisturbed(nodes: int, pipeline: Pipeline = SAVING) -> tuple[tuple[ShardId, ...], range]:
    """The final parameters, and node 0's actions while the run lasts."""
    world, run = mesh(nodes, pipeline=pipeline)
    before = world.hosts[0].performed
    weights = finish(world, run, ENDS_S)
    return weights, range(before, world.hosts[0].performed)


def cut(nodes: int, index: int, fault: PowerCut, noise: frozenset[type] = PURE) -> tuple[World, RunId]:
    world, run = mesh(nodes, pipeline=SAVING, noise=noise)
    world.when(action(0, index), fault)
    begin_again(world, run, ENDS_S)
    world.run(ENDS_S, ended(world, run))
    return world, run


def survives(nodes: int, index: int, fault: PowerCut, noise: frozenset[type] = PURE) -> None:
    """The run ends as if nothing had been; unless nobody was promised anything and nobody knows of it."""
    world, run = cut(nodes, index, fault, noise)
    if not world.hosts[0].replies and all(state_at(host, run) is None for host in world.live()):
        return
    weights = finish(world, run, ENDS_S)
    if noise == PURE:
        assert weights == undisturbed(nodes)[0]


CUTS = {
    "kept": PowerCut(2.0),
    "unequal_boots": PowerCut(12.0),
    "fewer_nodes": PowerCut(2.0, stays_off=(2,)),
    "torn": PowerCut(2.0, torn=(0, 1, 2)),
    "one_disk_lost": PowerCut(2.0, lost=(1,)),
    "one_disk_lost_others_torn": PowerCut(2.0, lost=(2,), torn=(0, 1)),
}


@pytest.mark.parametrize("name", CUTS)
def test_a_run_outlives_a_power_cut_of_the_whole_site(name: str) -> None:
    """Killed at any moment, the mesh goes on by itself, in the same weights."""
    for index in undisturbed(3)[1][sorted(CUTS).index(name) :: 2 * STRIDE]:
        survives(3, index, CUTS[name])


@pytest.mark.parametrize("noise", [NOISY, WILD], ids=["noisy", "wild"])
def test_a_power_cut_mixes_nothing(noise: frozenset[type]) -> None:
    """What is made again has other bytes than what lies in older checkpoints."""
    for index in undisturbed(3)[1][:: 2 * STRIDE]:
        survives(3, index, PowerCut(4.0, lost=(1,)), noise)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("noise", [PURE, NOISY], ids=["pure", "noisy"])
@pytest.mark.parametrize("name", CUTS)
def test_a_run_outlives_a_power_cut_at_every_moment(name: str, noise: frozenset[type]) -> None:
    """The same for every single action."""
    for index in undisturbed(3)[1]:
        survives(3, index, CUTS[name], noise)


@pytest.mark.parametrize("save_s", [0.1, 4.0], ids=["quick", "slow"])
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("nodes", [1, 2, 3])
def test_each_version_that_is_due_comes_to_lie_on_disk(
    nodes: int, every: int, save_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one node too, where the next version is always newer than the one to be saved; and where a save takes longer
    than a step."""
    monkeypatch.setitem(SECONDS, SaveWork, save_s)
    world, run = mesh(nodes, pipeline=warm_then_two(every=every))
    finish(world, run, ENDS_S)
    saved = {report.fields["step"] for _, report in world.reports if report.name == "checkpoint.saved"}
    assert saved == set(range(every, SAVING.schedule.steps + 1, every))


@pytest.mark.parametrize("nodes", [1, 3])
def test_a_run_whose_checkpoints_are_all_refused_stops_and_begins_again_only_when_told(nodes: int) -> None:
    """Days of training must not be thrown away in silence; a disk that was mended is tried again."""
    world, run = mesh(nodes, pipeline=SAVING)
    world.expect(ENDS_S, lambda: any(host.disk.saved for host in world.hosts), "a version is saved")
    saved = {saved.header.id for host in world.hosts for saved in host.disk.saved.values()}
    world.at(world.now, PowerCut(1.0))
    world.run(0.0)
    for host in world.hosts:
        host.disk.damaged.update(saved)
    failed = ended(world, run, FAILED)
    world.expect(ENDS_S, lambda: len(world.live()) == nodes and failed(), "the run has failed")
    error = outcome(node(world.hosts[0]).runs[run].status)["error"]
    assert FROM_START_HINT in error
    assert "damaged on purpose" in error
    refused = [report for _, report in world.reports if report.name == "checkpoint.refused"]
    world.resume(0, run)
    world.run(0.5)
    world.expect(ENDS_S, failed, "it failed again")
    tried = [report for _, report in world.reports if report.name == "checkpoint.refused"]
    assert len(tried) > len(refused)
    assert begin_again(world, run, ENDS_S)
    assert finish(world, run, ENDS_S) == undisturbed(nodes)[0]


def fail(world: World, run: RunId) -> None:
    """The user's code raises wherever it is run, until all who are awake know that the run has failed."""
    for index in range(len(world.hosts)):
        world.at(world.now, BreakEngine(1_000, "user", index))
    awake = [host for host in world.hosts if host.answers]
    world.expect(ENDS_S, lambda: all(state_at(host, run) == FAILED for host in awake), "the run has failed")
    world.run(1.0)


def loads(world: World) -> list[int]:
    """Steps of the checkpoints that were loaded."""
    return [report.fields["step"] for _, report in world.reports if report.name == "checkpoint.loaded"]


@pytest.mark.parametrize("after_s", [0.3, 1.5, 2.5])
def test_a_failed_run_is_resumed_from_where_it_failed(after_s: float) -> None:
    """What was paid for is not paid again: its last version was saved when it failed, and what failed may do better."""
    world, run = mesh(3, pipeline=SAVING_AT_THE_END)
    world.run(after_s)
    fail(world, run)
    saved = [each.header.step for host in world.hosts for each in host.disk.saved.values()]
    world.calm()
    world.resume(1, run)
    assert finish(world, run, ENDS_S) == undisturbed(3, SAVING_AT_THE_END)[0]
    assert loads(world)[:1] == [max(saved)] if saved else not loads(world)
    assert saved or after_s < 1.0


@pytest.mark.parametrize("after_s", [0.02, 0.1])
def test_a_run_that_is_resumed_at_once_goes_on_with_what_is_in_memory(after_s: float) -> None:
    """Its last version may still be on its way to the disk."""
    world, run = mesh(3, pipeline=SAVING_AT_THE_END)
    world.run(2.0)
    for index in range(3):
        world.at(world.now, BreakEngine(1_000, "user", index))
    world.expect(ENDS_S, lambda: state_at(world.hosts[1], run) == FAILED, "the run has failed")
    world.run(after_s)
    world.calm()
    world.resume(1, run)
    assert finish(world, run, ENDS_S) == undisturbed(3, SAVING_AT_THE_END)[0]
    begun = [index for index, version in world.advanced if version.head.step == 1]
    assert sorted(begun) == [0, 1, 2]


@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("after_s", [0.3, 1.5, 2.5])
def test_a_run_that_was_stopped_goes_on_from_where_it_was(nodes: int, after_s: float) -> None:
    """Its newest version is on disk before a node has left, though no checkpoint was due; whoever is started again
    leaves it alone until it is resumed, and the weights are those of a run that was never stopped."""
    world, run = mesh(nodes, pipeline=SAVING_AT_THE_END)
    world.run(after_s)
    steps = [own.step for host in world.live() if (own := node(host).runs[run].state.versions.own) is not None]
    world.stop(0, run)
    for host in world.hosts:
        world.at(world.now + 0.2, Leave(host.index, 1.0))
    world.run(2.0)
    saved = [each.header.step for host in world.hosts for each in host.disk.saved.values()]
    assert max(saved, default=0) >= max(steps, default=0)
    for host in world.hosts:
        world.at(world.now, Join(host.index))
    world.run(8.0)
    told = [node(host).runs[run].summary() for host in world.live()]
    assert {(each["state"], each["step"]) for each in told} <= {("stopped", step) for step in (0, *saved)}
    assert not loads(world)
    world.resume(nodes - 1, run)
    assert finish(world, run, ENDS_S) == undisturbed(nodes, SAVING_AT_THE_END)[0]
    assert loads(world)[:1] == [max(saved)] if saved else not loads(world)


def test_who_is_stopped_twice_or_when_it_has_ended_stays_as_it_is() -> None:
    """A second wish is not a second end; what has finished has its result."""
    world, run = mesh(2, pipeline=SAVING)
    world.run(1.0)
    world.stop(0, run)
    world.stop(1, run)
    world.run(1.0)
    assert [said["state"] for host in world.hosts for ok, said in host.replies.values() if ok][-2:] == ["stopped"] * 2
    world.resume(0, run)
    world.run(0.1)
    finish(world, run, ENDS_S)
    world.stop(0, run)
    world.run(1.0)
    ok, said = list(world.hosts[0].replies.values())[-1]
    assert ok
    assert said["state"] == "done"


def test_who_slept_through_a_failure_does_not_end_the_next_attempt_with_it() -> None:
    """What it has to say of the first attempt is old news, whichever of the two it missed."""
    world, run = mesh(4, pipeline=SAVING)
    world.run(1.0)
    world.at(world.now, Pause(8.0, 3))
    fail(world, run)
    world.at(world.now, Pause(8.0, 2))
    for host in world.hosts:
        host.health.mend()
    world.resume(0, run)
    world.run(1.0)
    assert finish(world, run, ENDS_S) == undisturbed(4)[0]


def test_only_a_failed_run_is_resumed() -> None:
    """A finished one has its result, a cancelled one was given up on purpose."""
    world, run = mesh(2, pipeline=SAVING)
    finish(world, run, ENDS_S)
    world.resume(0, run)
    world.run(1.0)
    ok, said = list(world.hosts[0].replies.values())[-1]
    assert not ok
    assert "is done: only one that failed, was stopped or is paused can be resumed" in said["what"]


def test_a_site_that_is_switched_off_in_order_loses_no_step() -> None:
    """SIGTERM to all: two of them save the version that they hold, though no checkpoint was due."""
    world, run = mesh(3, pipeline=SAVING_AT_THE_END)
    world.run(2.0)
    step = max(own.step for host in world.live() if (own := node(host).runs[run].state.versions.own) is not None)
    for host in world.hosts:
        world.at(world.now, Leave(host.index, 1.0))
    world.run(2.0)
    assert step > 0
    assert sum(saved.header.step >= step for host in world.hosts for saved in host.disk.saved.values()) >= 2
    for host in world.hosts:
        world.at(world.now, Join(host.index))
    world.run(1.0)
    assert finish(world, run, ENDS_S) == undisturbed(3, SAVING_AT_THE_END)[0]
    assert loads(world)[0] >= step
