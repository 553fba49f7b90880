"""A cut network: both halves go on, and when it heals there is one mesh and one end."""

from __future__ import annotations

from pathlib import Path

import pytest

from dflow_protocols.pipeline import Pipeline
from tests.support.alone import weights_of
from tests.support.hosts import lacks
from tests.support.mesh import Daemon
from tests.support.sites import TwoSites
from tests.support.strike import all_stages, ended, running_step

pytestmark = pytest.mark.skipif(bool(lacks()), reason=lacks())
NOTICES_S = 60.0


def advanced(node: Daemon) -> int:
    """How many versions the daemon has adopted since it started, as its log says."""
    return sum("step.advanced" in line for line in node.log_lines())


def test_both_halves_of_a_cut_mesh_go_on_and_end_alike(tmp_path: Path) -> None:
    """No half knows whether the other one is dead; with exact work what each does is the same, so nothing is lost."""
    with TwoSites(tmp_path, 4) as mesh:
        near, far = mesh.near(), mesh.far()
        run = mesh.submit(near[0], all_stages())
        running_step(mesh, run)
        mesh.cut()
        mesh.until(lambda: {mesh.states(near[0])[node.name] for node in far} == {"dead"}, NOTICES_S)
        alone = ended(mesh, run, near)
        assert (alone["state"], alone["weights"]) == ("done", weights_of(all_stages()))
        mesh.until(lambda: all(advanced(node) >= 4 for node in far), NOTICES_S)
        mesh.heal()
        mesh.await_all()
        whole = ended(mesh, run)
        assert (whole["state"], whole["weights"]) == ("done", weights_of(all_stages()))


@pytest.mark.slow
def test_a_mesh_that_heals_before_the_end_finishes_as_one(tmp_path: Path) -> None:
    """A switch reboots under a run: the halves meet again, and all four take part in what is left."""
    pipeline = all_stages(steps=8)
    with TwoSites(tmp_path, 4) as mesh:
        near, far = mesh.near(), mesh.far()
        run = mesh.submit(near[0], pipeline)
        running_step(mesh, run)
        mesh.cut()
        mesh.until(lambda: {mesh.states(near[0])[node.name] for node in far} == {"dead"}, NOTICES_S)
        mesh.heal()
        mesh.await_all()
        whole = ended(mesh, run)
        assert whole["state"] == "done"
        tasks = mesh.ask(near[0], "tasks", run=run, step=7)["tasks"]
        assert {task["node"] for task in tasks} == set(mesh.nodes)
        assert whole["weights"] == weights_of(pipeline)


@pytest.mark.slow
def test_with_engines_that_never_answer_alike_one_branch_stays_and_the_other_is_told_of_once(tmp_path: Path) -> None:
    """Four daemons, two of them on the branch that loses: one line in one log, and figures that do not count say so."""
    pipeline = all_stages(steps=20, noise=1.0)
    with TwoSites(tmp_path, 4) as mesh:
        near, far = mesh.near(), mesh.far()
        run = mesh.submit(near[0], pipeline)
        running_step(mesh, run)
        mesh.cut()
        before = {node.name: advanced(node) for node in mesh.nodes.values()}
        mesh.until(lambda: all(advanced(node) >= before[node.name] + 3 for node in mesh.nodes.values()), NOTICES_S)
        mesh.heal()
        mesh.await_all()
        whole = ended(mesh, run)
        assert whole["state"] == "done"
        told = [line for node in mesh.nodes.values() for line in node.log_lines() if "run.branch_lost" in line]
        assert len(told) == 1, told
        for node in (near[0], far[0]):
            answer = mesh.ask(node, "metrics", run=run)
            assert [row["step"] for row in answer["rows"]] == list(range(whole["steps"] + 1))
            assert answer["abandoned"]
            assert all(row["abandoned"] for row in answer["abandoned"])


@pytest.mark.slow
def test_the_half_that_is_asked_to_wait_waits_and_comes_back(tmp_path: Path) -> None:
    """With `on_split: pause_minority` nothing is trained twice: one half stands still until the cable is mended."""
    pipeline = Pipeline.from_dict(all_stages(steps=30, noise=1.0).to_dict() | {"on_split": "pause_minority"})
    with TwoSites(tmp_path, 4) as mesh:
        near, far = mesh.near(), mesh.far()
        run = mesh.submit(near[0], pipeline)
        running_step(mesh, run)
        mesh.cut()

        def waiting(half: list[Daemon]) -> bool:
            return all(any("run.paused" in line for line in node.log_lines()) for node in half)

        mesh.until(lambda: waiting(near) or waiting(far), NOTICES_S)
        idle, busy = (near, far) if waiting(near) else (far, near)
        before = {node.name: advanced(node) for node in mesh.nodes.values()}
        mesh.until(lambda: all(advanced(node) >= before[node.name] + 2 for node in busy), NOTICES_S)
        assert [advanced(node) for node in idle] == [before[node.name] for node in idle]
        mesh.heal()
        mesh.await_all()
        assert ended(mesh, run)["state"] == "done"
        assert not any("run.branch_lost" in line for node in mesh.nodes.values() for line in node.log_lines())
