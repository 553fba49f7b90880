"""How a mesh is found: any one way that leads to a member is enough, and none is needed to start."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.mesh import Daemon, Mesh
from tests.support.strike import ended
from tests.support.toy import toy_pipeline

MEETS_S = 60.0


def launched(mesh: Mesh, *seeds: tuple[str, ...]) -> list[Daemon]:
    """Daemons n0, n1, ... that name these others as seeds."""
    nodes = [mesh.prepare() for _ in seeds]
    for node, named in zip(nodes, seeds, strict=True):
        node.seeds = named
        mesh.launch(node)
    return nodes


def knows(mesh: Mesh, node: Daemon, *others: Daemon) -> bool:
    states = mesh.states(node)
    return all(states.get(other.name) == "alive" for other in others)


def test_two_meshes_become_one_as_soon_as_a_daemon_knows_one_of_each(tmp_path: Path) -> None:
    """Two racks were set up apart; a fifth machine that was given a seed of each joins them, and runs of both go on."""
    pipeline = toy_pipeline(steps=12, generate_s=0.2, gradient_s=0.1)
    with Mesh(tmp_path, 0) as mesh:
        a, b, c, d = launched(mesh, (), ("n0",), (), ("n2",))
        mesh.until(lambda: knows(mesh, a, b) and knows(mesh, c, d), MEETS_S)
        assert set(mesh.states(a)) == {"n0", "n1"}
        left, right = mesh.submit(a, pipeline, nonce="left"), mesh.submit(c, pipeline, nonce="right")
        mesh.until(lambda: mesh.ask(b, "run", run=left)["step"] >= 1 <= mesh.ask(d, "run", run=right)["step"], MEETS_S)
        launched(mesh, ("n0", "n2"))
        mesh.await_all()
        mesh.until(lambda: all(len(mesh.ask(node, "runs")["runs"]) == 2 for node in mesh.running()), MEETS_S)
        assert ended(mesh, left)["state"] == ended(mesh, right)["state"] == "done"
        assert ended(mesh, left)["weights"] == ended(mesh, right)["weights"]
        assert {row["node"] for row in mesh.ask(a, "tasks", run=right)["tasks"]} > {"n2", "n3"}


@pytest.mark.parametrize("down_s", [3.0, pytest.param(60.0, marks=pytest.mark.slow)])
def test_a_daemon_whose_seeds_are_all_down_serves_alone_and_joins_once_one_is_up(tmp_path: Path, down_s: float) -> None:
    """The order in which machines come up after a power cut is nobody's concern."""
    with Mesh(tmp_path, 0) as mesh:
        seed = mesh.prepare()
        began = time.monotonic()
        (node,) = launched(mesh, ("n0",))
        mesh.await_all()
        assert ended(mesh, mesh.submit(node, toy_pipeline()))["state"] == "done"
        mesh.until(lambda: time.monotonic() - began > down_s, down_s + MEETS_S)
        pid = node.pid
        seed.seeds = ()
        mesh.launch(seed)
        mesh.await_all()
        assert node.pid == pid
        assert ended(mesh, mesh.submit(seed, toy_pipeline(seed=2)))["state"] == "done"


def test_a_restarted_daemon_finds_its_mesh_while_every_seed_is_down(tmp_path: Path) -> None:
    """A seed is needed once in a life: peers that were met are kept on disk."""
    with Mesh(tmp_path, 0) as mesh:
        seed, node, other = launched(mesh, (), ("n0",), ("n0",))
        mesh.await_all()
        mesh.until(lambda: (node.folder / "state" / "kept" / "peers").exists(), MEETS_S)
        mesh.kill(seed)
        mesh.kill(node)
        mesh.launch(node)
        mesh.await_all()
        assert knows(mesh, node, other)
