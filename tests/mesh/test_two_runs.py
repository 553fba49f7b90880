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


def test_two_runs_at_once_in_less_memory_than_one_takes_go_to_disk_and_end_in_the_same_weights(tmp_path: Path) -> None:
    """A full memory slows runs and stops none; what they took on disk they give back."""
    with Mesh(tmp_path, 2, '[shards]\nmemory_limit = "16 MiB"') as mesh:
        node, other = mesh.running()
        pipeline = toy_pipeline(steps=2, parameters=1_500_000)
        runs = [mesh.submit(node, pipeline, nonce="1"), mesh.submit(other, pipeline, nonce="2")]
        mesh.until(lambda: any(shards_of(mesh, each)["disk_bytes"] > 0 for each in mesh.running()), 60)
        for run in runs:
            mesh.until(lambda run=run: mesh.ask(node, "run", run=run)["state"] == "done", 90)  # type: ignore[misc]
        assert len({mesh.ask(node, "run", run=run)["version"] for run in runs}) == 1
        for each in mesh.running():
            mesh.until(lambda each=each: used_bytes(mesh, each) == 0, 60)  # type: ignore[misc]
            mesh.until(lambda each=each: shards_of(mesh, each)["disk_bytes"] == 0, 60)  # type: ignore[misc]


def test_two_runs_whose_versions_leave_no_room_for_a_step_end_one_after_the_other(tmp_path: Path) -> None:
    """Else both would wait for ever, and a person would have to find out which to cancel. The one that waits says why,
    and goes on by itself from the version that it had."""
    with Mesh(tmp_path, 2, '[shards]\nmemory_limit = "44 MiB"\ndisk_limit = 0') as mesh:
        node, other = mesh.running()
        pipelines = [toy_pipeline(steps=3, parameters=1_500_000, seed=seed) for seed in (1, 2)]
        runs = [mesh.submit(each, pipeline) for each, pipeline in zip((node, other), pipelines, strict=True)]
        mesh.until(lambda: "gave way to run" in mesh.ask(node, "run", run=max(runs))["blocked"], 90)
        assert mesh.ask(node, "run", run=max(runs))["state"] == "active"
        for run in runs:
            mesh.until(lambda run=run: mesh.ask(node, "run", run=run)["state"] == "done", 120)  # type: ignore[misc]


def shards_of(mesh: Mesh, node: Daemon) -> dict[str, int]:
    return dict(mesh.ask(node, "status")["memory"]["shards"])
