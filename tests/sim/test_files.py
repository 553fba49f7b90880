"""Runs whose files do not lie on every host: who has them goes on, the others follow, nothing is opened too soon."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dflow_protocols.events import Action, FindFiles, Start
from dflow_protocols.simulator.faults import Crash, Handicap, starts
from dflow_protocols.simulator.goals import ended, finish
from dflow_protocols.simulator.model.files import HERE, Answer, Script
from dflow_protocols.simulator.world import World
from dflow_protocols.work import ApplyWork, BlockWork, ChainWork, InitWork, SaveWork
from tests.support.simulated import ENDS_S, mesh, undisturbed_weights

NEVER: Script = (Answer(0.0, "2 of 2 files are nowhere"),)
STALLS_S = 100.0  # in which a step without anything new would be called stalled


def soon(after_s: float) -> Script:
    """They are under way when they are looked for, and here so long after."""
    return Answer(0.0, "1 of 2 files is under way"), Answer(after_s)


def watch(world: World) -> list[tuple[int, Start]]:
    """All that is started from now on, and where."""
    seen: list[tuple[int, Start]] = []

    def note(node: int, performed: int, action: Action) -> bool:
        if isinstance(action, Start):
            seen.append((node, action))
        return False

    world.when(note, Crash(0))  # which this moment never comes to
    return seen


def at(seen: list[tuple[int, Start]], *kinds: type, where: Callable[[Start], bool] = lambda start: True) -> set[int]:
    return {node for node, start in seen if isinstance(start.work, kinds) and where(start)}


@pytest.mark.parametrize("nodes", [2, 4])
def test_who_has_the_files_begins_and_the_others_join_in_mid_step(nodes: int) -> None:
    """The ordinary case: a client's own host has them, and the others bring them in the first moments of the run."""
    world, run = mesh(nodes, files=(HERE, *[soon(0.5)] * (nodes - 1)))
    seen = watch(world)
    world.run(ENDS_S, ended(world, run))
    assert finish(world, run, ENDS_S) == undisturbed_weights()
    assert at(seen, InitWork) == {0}
    assert at(seen, ChainWork, BlockWork, where=lambda start: start.task.step == 0) == set(range(nodes))


def test_who_never_has_them_follows_and_opens_none() -> None:
    """It copies the first version, makes each next one, and is waited for by nobody when checkpoints are written."""
    world, run = mesh(3, files=(HERE, HERE, NEVER))
    seen = watch(world)
    world.run(ENDS_S, ended(world, run))
    assert finish(world, run, ENDS_S) == undisturbed_weights()
    assert 2 not in at(seen, InitWork, ChainWork, BlockWork, SaveWork)
    assert 2 in at(seen, ApplyWork)


def test_code_in_the_middle_of_a_chain_runs_where_it_is_not_refused() -> None:
    """And all else of the run everywhere."""
    world, run = mesh(2, files=((Answer(0.0, refused=("score",)),), HERE))
    seen = watch(world)
    world.run(ENDS_S, ended(world, run))
    assert finish(world, run, ENDS_S) == undisturbed_weights()
    assert at(seen, ChainWork, where=lambda start: start.task.stage == "roll") == {1}
    assert at(seen, BlockWork) == {0, 1}


@pytest.mark.parametrize("scripts", [(NEVER, NEVER), ((Answer(0.0, refused=("score",)),),) * 2], ids=["files", "code"])
def test_a_run_that_nobody_may_go_on_with_is_blocked_and_not_stalled(scripts: tuple[Script, ...]) -> None:
    """A person reads what is missing, and not whom to restart."""
    world, _ = mesh(2, files=scripts)
    world.run(STALLS_S)
    told = [report.name for _, report in world.reports]
    assert told.count("run.blocked") == 2
    assert "run.stalled" not in told


def test_a_restarted_node_looks_for_them_anew() -> None:
    """What its last life was told counts for nothing: a disk may have gone in between."""
    world, run = mesh(2, files=(HERE, soon(1.0)))
    asked: list[int] = []

    def note(node: int, performed: int, action: Action) -> bool:
        if isinstance(action, FindFiles):
            asked.append(node)
        return False

    world.when(note, Crash(0))
    world.when(starts(ChainWork, node=1), Crash(None, 0.5))
    world.run(ENDS_S, ended(world, run))
    assert finish(world, run, ENDS_S) == undisturbed_weights()
    assert asked == [1, 1]


def test_a_broken_host_that_alone_has_them_does_not_end_the_run() -> None:
    """Others come to have them, and show that its tasks are good."""
    world, run = mesh(3, files=(soon(8.0), HERE, soon(8.0)))
    world.when(starts(ChainWork, node=1), Handicap("broken", 1))
    world.run(ENDS_S, ended(world, run))
    assert finish(world, run, ENDS_S) == undisturbed_weights()
