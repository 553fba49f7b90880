"""Several runs at once on one mesh: each ends as if it were alone."""

from __future__ import annotations

from pathlib import Path

from tests.support.mesh import Daemon, Mesh
from tests.support.toy import toy_pipeline


def used_bytes(mesh: Mesh, node: Daemon) -> int:
    return int(mesh.ask(node, "status")["memory"]["shards"]["used_bytes"])


def test_two_runs_of_one_spec_at_once_end_in_the_same_weights_and_leave_nothing(tmp_path: Path) -> None:
    """They name the same shards, so what one of them frees the other may be about to read."""
    with Mesh(tmp_path, 2) as mesh:
        node, other = mesh.running()
        pipeline = toy_pipeline(steps=4, gradient_s=0.02)
        runs = [mesh.submit(node, pipeline, nonce="1"), mesh.submit(other, pipeline, nonce="2")]
        assert len(set(runs)) == 2
        ends = []
        for run in runs:
            mesh.until(lambda run=run: mesh.ask(node, "run", run=run)["state"] == "done", 90)  # type: ignore[misc]
            ends.append(mesh.ask(node, "run", run=run)["version"])
        assert ends[0] == ends[1]
        for each in mesh.running():
            mesh.until(lambda each=each: used_bytes(mesh, each) == 0, 60)  # type: ignore[misc]
