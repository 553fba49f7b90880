"""Hosts unlike each other: a slow one holds nobody up, a broken one changes nothing, a task at fault is told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dflow_protocols.claiming.ability import WITHDRAW_AFTER
from dflow_protocols.run_state.calls import QUEUED
from tests.support.alone import weights_of
from tests.support.mesh import Mesh
from tests.support.strike import RUN_S, await_stable, ended, is_alive
from tests.support.toy import toy_pipeline


def with_host(folder: Path, count: int, speed: str) -> Mesh:
    """A mesh whose last daemon has an engine of this speed."""
    mesh = Mesh(folder / "mesh", count)
    mesh.nodes[f"n{count - 1}"].environment = {"DFLOWD_EMULATED_SPEED": speed}
    return mesh


def tasks(mesh: Mesh, run: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = mesh.ask(mesh.running()[0], "tasks", run=run)["tasks"]
    return rows


def reports(mesh: Mesh, name: str) -> dict[str, list[str]]:
    """By daemon, the lines of its log that tell this."""
    return {node.name: [line for line in node.log_lines() if f" {name} " in line] for node in mesh.nodes.values()}


def test_what_waits_at_a_slow_host_is_stolen_and_the_weights_stay_the_same(tmp_path: Path) -> None:
    """A host at a tenth of the speed is dealt as much as the others; they come for it, partitions and leaves alike."""
    pipeline = toy_pipeline(2, 12, 12 // 3 * 2, 50_000, generate_s=0.1, gradient_s=0.05)
    with with_host(tmp_path, 3, "0.1") as mesh:
        await_stable(mesh)
        run = mesh.submit(mesh.nodes["n0"], pipeline)
        assert ended(mesh, run)["weights"] == weights_of(pipeline)
        stolen = [task for task in tasks(mesh, run) if task["stolen"]]
        assert {task["stage"] for task in stolen} >= {"roll", "learn"}
        assert all(task["origin"] == "stolen" for task in stolen)
        assert "n2" not in {task["node"] for task in stolen if task["step"] == 1}  # by then it knows how slow it is


def test_a_broken_host_leaves_its_share_to_others_and_the_weights_stay_the_same(tmp_path: Path) -> None:
    """It answers every ping and fails everything at once; after three tasks of a stage it says so, and is let be.

    A step samples for longer than its engine takes to start anew, on a busy machine, too: so others have not stolen all
    of its share by the time it gets to the next one, and it is back from its failed update while the next step
    samples."""
    pipeline = toy_pipeline(3, 24, 4, 50_000, generate_s=0.5, gradient_s=0.05)
    with with_host(tmp_path, 3, "0") as mesh:
        await_stable(mesh)
        run = mesh.submit(mesh.nodes["n0"], pipeline)
        mesh.until(lambda: reports(mesh, "operator.withdrawn")["n2"], 2 * RUN_S)
        summary = ended(mesh, run)
        assert summary["state"] == "done", summary["error"]
        assert summary["weights"] == weights_of(pipeline)
        withdrawn = reports(mesh, "operator.withdrawn")
        tries = [line for line in withdrawn["n2"] if " stage=roll " in line]
        assert tries
        assert not withdrawn["n0"] + withdrawn["n1"]
        failed = [task for task in tasks(mesh, run) if task["state"] == "failed" and task["stage"] == "roll"]
        assert {task["node"] for task in failed} == {"n2"}
        # Three, then one at each further try; and the one behind it, which an engine may begin before it is given up.
        assert len(failed) <= WITHDRAW_AFTER - 1 + (1 + QUEUED) * len(tries)


def test_a_task_that_kills_every_engine_ends_the_run_with_the_evidence(tmp_path: Path) -> None:
    """Three engines die of it, each on another host; daemons and engines live on, and people are told which task."""
    with Mesh(tmp_path / "mesh", 3) as mesh:
        await_stable(mesh)
        run = mesh.submit(mesh.nodes["n0"], toy_pipeline(2, 6, 4, 1_000, generate_s=0.02, kills=3))
        summary = ended(mesh, run)
        assert (summary["state"], summary["steps"]) == ("failed", 2)
        assert "0/roll/p2 failed" in summary["error"]
        assert len({node for node, *_ in summary["evidence"]}) == 3
        assert all(is_alive(node.pid) for node in mesh.running())
        well = mesh.submit(mesh.nodes["n1"], toy_pipeline(1, 6, 4, 1_000), nonce="2")
        assert ended(mesh, well)["state"] == "done"


def test_a_partition_that_user_code_cannot_take_is_left_out_where_the_pipeline_says_so(tmp_path: Path) -> None:
    """One odd row must not end a long run: with `on_poison: skip` the step trains without it, alike on any number of
    nodes, and says so."""
    pipeline = toy_pipeline(2, 6, 4, 1_000, on_poison="skip", raises=3)
    with Mesh(tmp_path / "mesh", 2) as mesh:
        await_stable(mesh)
        summary = ended(mesh, mesh.submit(mesh.nodes["n0"], pipeline))
        assert (summary["state"], summary["skipped"]) == ("done", 2)
        assert any(reports(mesh, "task.skipped").values())
        alone = mesh.nodes["n1"]
        mesh.kill(mesh.nodes["n0"])
        mesh.until(lambda: mesh.states(alone)["n0"] == "dead", 60)
        assert ended(mesh, mesh.submit(alone, pipeline, nonce="2"))["weights"] == summary["weights"]
