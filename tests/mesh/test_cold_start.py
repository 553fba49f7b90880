"""All daemons are killed at once and started again: the run goes on from its checkpoints by itself."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from dflow_protocols.pipeline import Pipeline
from tests.support.mesh import Daemon, Mesh
from tests.support.strike import all_stages, ended

STEPS = 6
STEPS_SAVED = {"step-000002", "step-000003"}
SEES_S = 60.0


def spec() -> Pipeline:
    return all_stages(steps=STEPS, parameters=200_000)


def folders(node: Daemon, run: str) -> list[Path]:
    """Its checkpoints of the run, oldest first."""
    return sorted(path for path in (node.folder / "state/runs" / run / "checkpoints").glob("step-*"))


def interrupted(mesh: Mesh, nonce: str) -> str:
    """A run in whose middle every daemon was killed, with the checkpoints of two steps on disks; its id."""
    run = mesh.submit(mesh.nodes["n0"], spec(), nonce=nonce)
    mesh.until(lambda: {path.name for node in mesh.running() for path in folders(node, run)} >= STEPS_SAVED, SEES_S)
    for node in mesh.running():
        mesh.kill(node)
    return run


def told(mesh: Mesh, report: str) -> list[str]:
    return [line for node in mesh.nodes.values() for line in node.log_lines() if f" {report} " in line]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[str]]:
    """What a daemon alone makes of the pipeline, and what it says of each checkpoint that it saved."""
    with Mesh(tmp_path_factory.mktemp("alone"), 1) as mesh:
        run = mesh.submit(mesh.nodes["n0"], spec())
        return ended(mesh, run), [line for line in told(mesh, "checkpoint.saved") if run in line]


def test_a_site_that_loses_power_goes_on_from_its_checkpoints(
    tmp_path: Path, undisturbed: tuple[dict[str, Any], list[str]]
) -> None:
    """It begins where the best checkpoint is, ends in the same weights, and counts no step twice."""
    with Mesh(tmp_path, 3) as mesh:
        run = interrupted(mesh, "1")
        for node in mesh.nodes.values():
            mesh.launch(node)
        mesh.await_all()
        whole = ended(mesh, run)
        assert (whole["state"], whole["weights"]) == ("done", undisturbed[0]["weights"])
        assert whole["evals"] == undisturbed[0]["evals"]
        assert told(mesh, "checkpoint.loaded")
        rows = mesh.ask(mesh.nodes["n1"], "metrics", run=run)["rows"]
        assert [row["step"] for row in rows] == list(range(STEPS + 1))
        assert all("reward_mean" in row for row in rows[2:])


def test_a_lost_disk_and_damaged_checkpoints_cost_steps_and_nothing_else(
    tmp_path: Path, undisturbed: tuple[dict[str, Any], list[str]]
) -> None:
    """The best that is whole on any disk is taken, on fewer machines too; what is damaged is named."""
    with Mesh(tmp_path, 3) as mesh:
        run = interrupted(mesh, "1")
        lost, *damaged = sorted(mesh.nodes.values(), key=lambda node: len(folders(node, run)))
        shutil.rmtree(lost.folder / "state")
        newest = max(path.name for node in damaged for path in folders(node, run))
        torn = [folder for node in damaged for folder in folders(node, run) if folder.name == newest]
        for index, folder in enumerate(torn):
            os.truncate(folder / ("dflow.json" if index else "params-policy.f32"), 300)
        for node in damaged:
            mesh.launch(node)
        mesh.await_all()
        whole = ended(mesh, run)
        assert (whole["state"], whole["weights"]) == ("done", undisturbed[0]["weights"])
        assert len(told(mesh, "checkpoint.refused")) == len(torn)
        assert any("params-policy.f32" in line for line in told(mesh, "checkpoint.refused"))


def test_a_daemon_alone_saves_every_version_that_is_due(undisturbed: tuple[dict[str, Any], list[str]]) -> None:
    """It has one slot, and the next step wants it as soon as a version is made."""
    summary, saved = undisturbed
    assert summary["state"] == "done"
    assert len(saved) == STEPS, saved
