"""A daemon is taken out of work in the middle of a run, and back into it, as before a host is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.alone import weights_of
from tests.support.mesh import Daemon, Mesh, Refused
from tests.support.strike import ended
from tests.support.toy import toy_pipeline


def row_of(mesh: Mesh, asked: Daemon, node: Daemon) -> dict[str, Any]:
    rows = mesh.ask(asked, "nodes", detail=True)["nodes"]
    return next(row for row in rows if row["id"] == node.id)


def is_idle(mesh: Mesh, asked: Daemon, node: Daemon) -> bool:
    row = row_of(mesh, asked, node)
    return bool(row["is_drained"] and row["work"] and not row["work"]["tasks"] and not row["work"]["shards"])


def starts_of(node: Daemon, mesh: Mesh, run: str) -> list[int]:
    """The steps of the tasks that it began."""
    rows = mesh.ask(node, "tasks", run=run)["tasks"]
    return [row["step"] for row in rows if row["node"] == node.name]


def test_a_daemon_is_drained_in_a_run_and_taken_back(tmp_path: Path) -> None:
    """It begins nothing more, is idle soon, is drained still after a restart, and works again when that is undone."""
    pipeline = toy_pipeline(steps=40, partitions=8, leaves=8, generate_s=0.05, gradient_s=0.02)
    with Mesh(tmp_path, 3) as mesh:
        asked, other, drained = mesh.running()
        run = mesh.submit(asked, pipeline)
        mesh.until(lambda: starts_of(drained, mesh, run), 60)
        answer = mesh.ask(asked, "drain", name=drained.name)
        assert answer["id"] == drained.id
        mesh.until(lambda: is_idle(mesh, other, drained), 60)
        row = row_of(mesh, other, drained)
        assert 0.0 < row["share"] < 1.0
        assert row["work"]["running"] == []
        begun = len(starts_of(drained, mesh, run))
        assert any(f"audit.drained node={drained.id} by=client" in line for line in asked.log_lines())
        assert mesh.terminate(drained) == 0
        mesh.launch(drained)
        mesh.await_all()
        mesh.until(lambda: is_idle(mesh, other, drained), 60)
        assert len(starts_of(drained, mesh, run)) == begun
        mesh.ask(drained, "drain", name=drained.name, undo=True)
        mesh.until(lambda: len(starts_of(drained, mesh, run)) > begun, 60)
        whole = ended(mesh, run)
        assert (whole["state"], whole["weights"]) == ("done", weights_of(pipeline))
        with pytest.raises(Refused, match="no node `n7` is alive"):
            mesh.ask(asked, "drain", name="n7")
