"""Shards are mapped by the engines that read them, and cancelling gives every byte back."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.support.mesh import Daemon, Mesh
from tests.support.strike import mapped_segments, running_tasks, segments
from tests.support.toy import toy_pipeline


def used_bytes(mesh: Mesh, node: Daemon) -> int:
    return int(mesh.ask(node, "status")["memory"]["shards"]["used_bytes"])


def test_an_engine_maps_the_segments_that_its_daemon_keeps(tmp_path: Path) -> None:
    """Weights and rollouts reach an engine without a copy: what it has mapped is what the daemon has open."""
    with Mesh(tmp_path, 1) as mesh:
        (node,) = mesh.running()
        run = mesh.submit(node, toy_pipeline(steps=50, parameters=1_000_000, gradient_s=0.3))
        mesh.until(lambda: running_tasks(mesh, run, "learn", "b"), 60)
        (engine,) = node.children()
        mesh.until(lambda: mapped_segments(engine), 60)
        os.kill(engine, signal.SIGSTOP)  # so that nothing is dropped between the two looks
        kept = {inode for _, inode in segments(node.pid)}
        mapped = mapped_segments(engine)
        assert mapped
        assert mapped & kept
        assert f"memfd:dflowd-{node.name}" in Path(f"/proc/{engine}/maps").read_text()
        os.kill(engine, signal.SIGCONT)


def test_cancel_stops_a_runs_tasks_and_frees_its_shards_on_every_node(tmp_path: Path) -> None:
    """Also on one that was stopped while the others heard of it, and for no other run."""
    with Mesh(tmp_path, 3) as mesh:
        asked, deaf, other = mesh.running()
        pipeline = toy_pipeline(steps=500, parameters=1_000_000, generate_s=0.2, gradient_s=0.2)
        run = mesh.submit(asked, pipeline)
        for node in mesh.running():
            mesh.until(lambda node=node: used_bytes(mesh, node) > 4_000_000, 60)  # type: ignore[misc]
        os.kill(deaf.pid, signal.SIGSTOP)
        assert mesh.ask(other, "cancel", run=run)["state"] == "cancelled"
        os.kill(deaf.pid, signal.SIGCONT)
        for node in mesh.running():
            mesh.until(lambda node=node: mesh.ask(node, "run", run=run)["state"] == "cancelled", 60)  # type: ignore[misc]
            mesh.until(lambda node=node: used_bytes(mesh, node) == 0, 60)  # type: ignore[misc]
            mesh.until(lambda node=node: mapped_of_engines(node) <= open_at(node), 60)  # type: ignore[misc]
        assert running_tasks(mesh, run, "roll", "", 0) == running_tasks(mesh, run, "learn", "", 0) == []


def open_at(node: Daemon) -> set[int]:
    """What its daemon keeps for the next shards, used or not."""
    return {inode for _, inode in segments(node.pid)}


def mapped_of_engines(node: Daemon) -> set[int]:
    return {inode for pid in node.children() for inode in mapped_segments(pid)}
