"""A daemon that comes in the middle of a run takes part in it within seconds, and changes nothing."""

from __future__ import annotations

import time
from pathlib import Path

from tests.support.alone import weights_of
from tests.support.mesh import Mesh
from tests.support.strike import ended
from tests.support.toy import toy_pipeline


def test_a_daemon_added_in_the_middle_runs_tasks_and_changes_nothing(tmp_path: Path) -> None:
    """More machines are lent for a while: they help at once, and the weights are those that one alone makes."""
    pipeline = toy_pipeline(steps=10, partitions=12, leaves=8, generate_s=0.1, gradient_s=0.05)
    with Mesh(tmp_path, 2) as mesh:
        asked = mesh.nodes["n0"]
        run = mesh.submit(asked, pipeline)
        mesh.until(lambda: mesh.ask(asked, "run", run=run)["step"] >= 2, 60)
        began = time.monotonic()
        added = mesh.add()
        mesh.until(lambda: any(row["node"] == added.name for row in mesh.ask(asked, "tasks", run=run)["tasks"]), 60)
        print(f"runs tasks {time.monotonic() - began:.1f} s after its start")
        whole = ended(mesh, run)
        assert (whole["state"], whole["weights"]) == ("done", weights_of(pipeline))
        rows = [row for row in mesh.ask(asked, "tasks", run=run)["tasks"] if row["node"] == added.name]
        leaves = [row for row in rows if row["stage"] == "learn" and row["id"].rpartition("/")[2].startswith("b")]
        assert any(row["stage"] == "roll" for row in rows)
        assert any(not row["stolen"] for row in leaves)  # dealt to it: it is a trainer


def test_a_killed_daemon_that_is_started_again_works_on_its_old_run(tmp_path: Path) -> None:
    """Its disk says which runs there are; what it needs of them the others have."""
    pipeline = toy_pipeline(steps=500, partitions=8, generate_s=0.1, gradient_s=0.05)
    with Mesh(tmp_path, 3) as mesh:
        asked, victim, _ = mesh.running()
        run = mesh.submit(asked, pipeline)
        mesh.until(lambda: mesh.ask(asked, "run", run=run)["step"] >= 2, 60)
        mesh.kill(victim)
        step = mesh.ask(asked, "run", run=run)["step"]
        mesh.until(lambda: mesh.ask(asked, "run", run=run)["step"] >= step + 2, 60)
        mesh.launch(victim)
        mesh.until(
            lambda: any(
                row["node"] == victim.name and row["step"] > step for row in mesh.ask(asked, "tasks", run=run)["tasks"]
            ),
            60,
        )
        assert mesh.ask(victim, "cancel", run=run)["state"] == "cancelled"


def test_the_only_daemon_is_killed_and_started_again_and_its_run_ends(tmp_path: Path) -> None:
    """A site of one machine that loses power begins the run again from its disk, in the same weights."""
    pipeline = toy_pipeline(steps=4, generate_s=0.1)
    with Mesh(tmp_path, 1) as mesh:
        (node,) = mesh.running()
        run = mesh.submit(node, pipeline)
        mesh.until(lambda: mesh.ask(node, "run", run=run)["step"] >= 1, 60)
        mesh.kill(node)
        mesh.launch(node)
        mesh.await_all()
        answer = ended(mesh, run)
        assert (answer["state"], answer["weights"]) == ("done", weights_of(pipeline))
