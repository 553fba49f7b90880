"""Kills are the seed's, strike as drawn, and what they cost is told as a share of the time."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import pytest

from benchmarks.goodput import figures
from benchmarks.goodput.account import goodput
from benchmarks.goodput.kills import Kill, Striker, draw
from benchmarks.goodput.restarting import Checkpoint, train, while_struck
from benchmarks.scaling.profile import load


def test_both_systems_are_struck_alike() -> None:
    """The same seed gives the same victims at the same share of the run, however long that is."""
    short, long = draw("7/0", 4, 4, 100.0, 10.0), draw("7/0", 4, 4, 200.0, 10.0)
    assert [kill.node for kill in short] == [kill.node for kill in long]
    assert [2 * kill.at_s for kill in short] == pytest.approx([kill.at_s for kill in long])
    assert draw("8/0", 4, 4, 100.0, 10.0) != short


def test_kills_are_spread_over_the_run_and_change_their_victim() -> None:
    kills = draw("1/0", 8, 3, 80.0, 4.0)
    assert [int(kill.at_s // 10) for kill in kills] == list(range(8))
    assert all(one.node != next_.node for one, next_ in itertools.pairwise(kills))
    assert all(2.0 <= kill.repair_s <= 6.0 for kill in kills)


def test_a_node_dies_and_comes_back_when_it_is_due() -> None:
    done: list[tuple[str, int]] = []
    striker = Striker(
        [Kill(1.0, 2, 5.0)], 3, lambda node: done.append(("kill", node)), lambda node: done.append(("back", node))
    )
    for now_s in (0.5, 1.5, 3.0):
        striker.strike(now_s)
    assert done == [("kill", 2)]
    striker.strike(7.0)
    assert done == [("kill", 2), ("back", 2)]
    assert striker.done == 1


def test_the_last_node_that_lives_is_spared_until_another_is_back() -> None:
    """Nobody could go on, which is not the question."""
    killed: list[int] = []
    striker = Striker([Kill(1.0, 0, 5.0), Kill(2.0, 1, 5.0)], 2, killed.append, lambda _: None)
    striker.strike(2.5)
    assert killed == [0]
    striker.strike(8.0)
    assert killed == [0, 1]


def test_goodput_is_an_hour_over_an_hour_and_its_kills() -> None:
    """Half of ten nodes fail in an hour of 100 s and cost 5 s each: 100 of 125."""
    assert goodput(0.5, 10, 5.0, 100.0) == 0.8
    assert goodput(0.0, 10, 5.0, 100.0) == 1.0
    assert goodput(0.5, 10, -1.0, 100.0) == 1.0


def test_a_checkpoint_holds_the_step_that_was_saved_last(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    assert Checkpoint(path).load() == (0, 0.0)
    Checkpoint(path).save(3, 300.0)
    Checkpoint(path).save(4, 400.0)
    assert Checkpoint(path).load() == (4, 400.0)
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint.npz"]


def test_the_goal_is_of_goodput_itself_and_the_rival_stands_beside_it() -> None:
    """At 10 %, where others have published theirs."""
    profile = load("grpo-7b-math")
    told = {each.figure: each for each in figures({"dflowd": 2.0, "ray-references": 20.0}, profile, 4, (0, 10))}
    assert told["a kill costs"].ratio == pytest.approx(0.1)
    assert told["goodput at 0 % of the nodes an hour"].ours == 1.0
    assert (told["goodput at 10 % of the nodes an hour"].ratio or 0.0) > 1.0
    assert told["goodput at 10 % of the nodes an hour, itself"].holds


def test_a_controller_does_again_what_was_lost_since_its_checkpoint(tmp_path: Path) -> None:
    """A step that a death broke off is begun again, and its tokens count once; those before it are in the file."""
    errors = pytest.importorskip("ray.exceptions")

    class Dying:
        """Its second step fails once."""

        def __init__(self) -> None:
            self.tried: list[int] = []
            self.replaced = 0

        def step(self, step: int) -> float:
            self.tried.append(step)
            if self.tried == [0, 1]:
                raise errors.RayActorError
            return 10.0

        def replace_dead(self) -> None:
            self.replaced += 1

    driver, checkpoint = Dying(), Checkpoint(tmp_path / "checkpoint.npz")
    assert train(driver, 3, checkpoint) == 4
    assert checkpoint.load() == (3, 30.0)
    assert driver.tried == [0, 1, 1, 2]
    assert driver.replaced == 1


def test_nodes_are_killed_and_started_by_the_main_thread_while_the_driver_works() -> None:
    """Ray refuses to start a node elsewhere, since it sets handlers of signals; the driver then waits for ever."""
    strikers, is_back = list[threading.Thread](), threading.Event()

    def repair(_: int) -> None:
        strikers.append(threading.current_thread())
        is_back.set()

    striker = Striker([Kill(0.0, 1, 0.01)], 2, lambda _: strikers.append(threading.current_thread()), repair)
    assert while_struck(striker, lambda: is_back.wait(10.0))
    assert strikers == [threading.main_thread()] * 2


def test_a_strike_that_fails_ends_the_run() -> None:
    """Else a driver waits for a node that nobody starts."""

    def refuse(_: int) -> None:
        raise OSError("no room")

    never = threading.Event()
    with pytest.raises(OSError, match="no room"):
        while_struck(Striker([Kill(0.0, 1, 1.0)], 2, refuse, refuse), lambda: never.wait(10.0))
