"""Processes that stop and go on: a paused machine, a hung daemon, a hung engine. None of it costs more than time."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.alone import weights_of
from tests.support.mesh import Daemon, Mesh
from tests.support.strike import all_stages, ended, running_step, running_tasks
from tests.support.toy import toy_pipeline

NOTICES_S = 60.0
QUICK_HANG = "[engine]\nsilence_s = 2\n"


def passes(mesh: Mesh, seconds: float) -> None:
    """Let so much time go by; what is under test is what happens in it."""
    until = time.monotonic() + seconds
    mesh.until(lambda: time.monotonic() >= until, seconds + NOTICES_S)


def has_told(node: Daemon, report: str) -> bool:
    return any(report in line for line in node.log_lines())


@pytest.mark.parametrize("seconds", [3.0, pytest.param(30.0, marks=pytest.mark.slow)])
def test_a_daemon_that_slept_through_a_part_of_a_run_comes_back_and_gets_work(tmp_path: Path, seconds: float) -> None:
    """It is dead to the others meanwhile. On waking it asks what happened before it acts, follows, and works again."""
    pipeline = all_stages(steps=8 + int(2.5 * seconds))
    with Mesh(tmp_path, 3) as mesh:
        asked, sleeper, _ = mesh.running()
        run = mesh.submit(asked, pipeline)
        running_step(mesh, run)
        os.kill(sleeper.pid, signal.SIGSTOP)
        try:
            mesh.until(lambda: mesh.states(asked)[sleeper.name] == "dead", NOTICES_S)
            passes(mesh, seconds - 2.0)
        finally:
            os.kill(sleeper.pid, signal.SIGCONT)
        slept_until = mesh.ask(asked, "run", run=run)["step"]

        def works_again() -> bool:
            rows = mesh.ask(asked, "tasks", run=run)["tasks"]
            return any(row["node"] == sleeper.name and row["step"] > slept_until for row in rows)

        mesh.until(works_again, NOTICES_S)
        assert has_told(sleeper, "membership.rejoined answered=True")
        answer = ended(mesh, run)
        assert (answer["state"], answer["weights"]) == ("done", weights_of(pipeline))


def test_a_daemon_that_slept_while_the_others_finished_learns_the_end(tmp_path: Path) -> None:
    """It wakes in the middle of a step that was over long ago, and must not begin it again."""
    with Mesh(tmp_path, 3) as mesh:
        asked, sleeper, other = mesh.running()
        run = mesh.submit(asked, all_stages())
        running_step(mesh, run)
        os.kill(sleeper.pid, signal.SIGSTOP)
        try:
            whole = ended(mesh, run, [asked, other])
        finally:
            os.kill(sleeper.pid, signal.SIGCONT)
        assert ended(mesh, run, [sleeper])["weights"] == whole["weights"]
        mesh.await_all()


def test_the_only_daemon_sleeps_and_goes_on(tmp_path: Path) -> None:
    """There is nobody whom it could ask, and nothing that it could have missed."""
    pipeline = toy_pipeline(steps=3, generate_s=0.2, gradient_s=0.2)
    with Mesh(tmp_path, 1) as mesh:
        (node,) = mesh.running()
        run = mesh.submit(node, pipeline)
        mesh.until(lambda: mesh.ask(node, "run", run=run)["step"] >= 1, NOTICES_S)
        os.kill(node.pid, signal.SIGSTOP)
        passes(mesh, 4.0)
        os.kill(node.pid, signal.SIGCONT)
        answer = ended(mesh, run)
        assert (answer["state"], answer["weights"]) == ("done", weights_of(pipeline))


def test_a_stop_shorter_than_the_suspicion_kills_nobody(tmp_path: Path) -> None:
    """A machine that swaps for a second is slow, not dead: its work stays its own."""
    with Mesh(tmp_path, 3) as mesh:
        asked, paused, other = mesh.running()
        run = mesh.submit(asked, all_stages())
        running_step(mesh, run)
        os.kill(paused.pid, signal.SIGSTOP)
        passes(mesh, 0.8)
        os.kill(paused.pid, signal.SIGCONT)
        answer = ended(mesh, run)
        assert (answer["state"], answer["weights"]) == ("done", weights_of(all_stages()))
        assert not any(f"membership.died node={paused.id}" in line for n in (asked, other) for line in n.log_lines())
        assert not has_told(paused, "membership.rejoined")


def test_a_hung_engine_is_started_again_and_changes_nothing(tmp_path: Path) -> None:
    """A driver that does not return keeps the engine's process alive and its heart still; the daemon ends it."""
    with Mesh(tmp_path, 2, QUICK_HANG) as mesh:
        asked, victim = mesh.running()
        run = mesh.submit(asked, all_stages())

        def at_work() -> bool:
            return any(row["node"] == victim.name for row in running_tasks(mesh, run, "learn", "b"))

        mesh.until(at_work, NOTICES_S)
        (hung,) = victim.children()
        os.kill(hung, signal.SIGSTOP)
        answer = ended(mesh, run)
        assert (answer["state"], answer["weights"]) == ("done", weights_of(all_stages()))
        mesh.until(lambda: has_told(victim, "engine.died"), NOTICES_S)
        mesh.until(lambda: hung not in victim.children(), NOTICES_S)
