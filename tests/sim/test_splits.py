"""A cut mesh whose engines never answer twice alike: one branch stays, the other is told of once, with its cost."""

from __future__ import annotations

from functools import cache

import pytest

from dflow_protocols.events import Report
from dflow_protocols.names import RunId
from dflow_protocols.pipeline.spec import Pipeline
from dflow_protocols.simulator.faults import Crash, Split
from dflow_protocols.simulator.goals import finish, node, state_at
from dflow_protocols.simulator.model.work import NOISY, PURE
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.simulator.world import World
from tests.support.simulated import ENDS_S, mesh, undisturbed_weights

LONG_S = 40.0  # of a split: enough for either side to end the run, if it goes on


@cache
def steps(count: int, on_split: str = "continue") -> Pipeline:
    return Pipeline.from_dict(two_steps().to_dict() | {"steps": count, "on_split": on_split})


def told(world: World, name: str) -> list[Report]:
    return [report for _, report in world.reports if report.name == name]


def own_step(world: World, index: int, run: RunId) -> int:
    own = node(world.hosts[index]).runs[run].state.versions.own
    return -1 if own is None else own.step


@pytest.mark.parametrize("side", [(0,), (0, 1)], ids=["one-of-four", "two-of-four"])
@pytest.mark.parametrize("seed", range(3))
def test_a_lost_branch_is_told_of_once_with_what_it_cost(seed: int, side: tuple[int, ...]) -> None:
    """Who pays for the hardware must learn what a cut cable cost, and not four times over."""
    world, run = mesh(4, seed=seed, noise=NOISY, pipeline=steps(12))
    world.run(1.5)
    at_cut = [own_step(world, index, run) for index in range(4)]
    world.at(world.now, Split(side, 8.0))
    world.run(7.9)
    reached = [own_step(world, index, run) for index in range(4)]
    finish(world, run, ENDS_S)
    lost = told(world, "run.branch_lost")
    assert len(lost) == 1
    fields = lost[0].fields
    assert min(at_cut) <= fields["fork_step"] <= max(at_cut) + 1
    assert min(reached) <= fields["fork_step"] + fields["steps"]
    assert fields["steps"] >= 1
    assert fields["samples"] > 0
    assert fields["version"] != fields["kept"]


def test_halves_that_compute_the_same_lose_nothing() -> None:
    """Where bits follow from the pipeline, two halves make the same versions: there is no branch."""
    world, run = mesh(4, noise=PURE)
    world.run(0.7)
    world.at(world.now, Split((0, 1), 8.0))
    world.run(8.1)
    assert finish(world, run, ENDS_S) == undisturbed_weights()
    assert told(world, "run.branch_lost") == []


@pytest.mark.parametrize("side", [(0,), (0, 1), (1, 2)])
def test_only_one_part_of_a_split_goes_on_where_the_pipeline_asks_for_it(side: tuple[int, ...]) -> None:
    """With expensive noisy work a branch that loses is worse than one that waits."""
    world, run = mesh(4, noise=NOISY, pipeline=steps(12, "pause_minority"))
    world.run(1.5)
    world.at(world.now, Split(side, LONG_S))
    world.run(10.0)
    before = [own_step(world, index, run) for index in range(4)]
    world.run(15.0)
    moved = {index for index in range(4) if own_step(world, index, run) != before[index]}
    ended = {index for index in range(4) if state_at(world.hosts[index], run) == "finished"}
    rest = set(range(4)) - set(side)
    goes_on = moved | ended
    assert goes_on in (set(side), rest)
    assert len(side) == 2 or goes_on == rest
    waiting = node(world.hosts[next(iter({*side, *rest} - goes_on))]).runs[run]
    assert waiting.summary()["paused"]
    finish(world, run, ENDS_S)
    assert told(world, "run.branch_lost") == []


def test_who_is_left_after_deaths_waits_until_a_person_says_go_on() -> None:
    """Three of four machines burnt: that is no split, but only a person can know it."""
    world, run = mesh(4, pipeline=steps(6, "pause_minority"))
    world.run(1.0)
    for index in (1, 2, 3):
        world.at(world.now, Crash(index))
    world.run(30.0)
    assert node(world.hosts[0]).runs[run].summary()["paused"]
    assert state_at(world.hosts[0], run) == "active"
    world.resume(0, run)
    finish(world, run, ENDS_S)


def test_a_mesh_that_shrinks_step_by_step_does_not_pause() -> None:
    """Each step is dealt to who lived then, so it takes a loss of half at once to look like a split."""
    world, run = mesh(5, pipeline=steps(12, "pause_minority"))
    for index in (4, 3):
        world.run(6.0)
        world.at(world.now, Crash(index))
    finish(world, run, ENDS_S)
    assert told(world, "run.paused") == []


def test_who_was_cut_off_when_a_run_began_again_begins_again_with_the_others() -> None:
    """It knows of no failure, and goes on in the first attempt from where it is: what a person wanted to be rid of
    would be copied from it as the best that there is."""
    world, run = mesh(3, noise=NOISY, pipeline=steps(12))
    world.run(3.0)
    world.at(world.now, Split((2,), 8.0))
    world.run(5.0)
    world.stop(0, run)
    world.run(2.0)
    world.resume(0, run, from_start=True)
    world.run(0.9)
    alone = own_step(world, 2, run)
    world.run(1.0)
    assert [node(host).runs[run].status.attempt for host in world.hosts] == [1, 1, 1]
    assert max(own_step(world, index, run) for index in range(3)) < alone
    finish(world, run, ENDS_S)
