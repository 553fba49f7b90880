"""A disk that is full: nobody starts on it, nobody dies of it, and others do what it cannot take."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import disk
from tests.support.disk import fill
from tests.support.mesh import Daemon, Mesh, Refused
from tests.support.toy import toy_pipeline


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own where n1 will keep its state."""
    try:
        with disk.small_disk(tmp_path / "mesh" / "n1" / "state") as folder:
            yield folder
    except disk.NoMount as why:
        pytest.skip(str(why))


def problems(mesh: Mesh, node: Daemon) -> set[str]:
    return {row["key"] for row in mesh.ask(node, "status")["problems"]}


@pytest.mark.slow
def test_a_daemon_whose_disk_fills_up_goes_on_and_says_so_until_there_is_room(small_disk: Path, tmp_path: Path) -> None:
    """The run ends with checkpoints on the others' disks; the full one neither dies nor vouches for what it lacks."""
    mesh = Mesh(tmp_path / "mesh", 1)
    with mesh:
        (healthy,) = mesh.running()
        full, _ = mesh.add(), mesh.add()
        mesh.await_all()
        filler = fill(small_disk)
        mesh.until(lambda: "disk" in problems(mesh, full), 60)
        run = mesh.submit(healthy, toy_pipeline(steps=2))
        mesh.until(lambda: mesh.ask(healthy, "run", run=run)["state"] == "done", 90)
        assert full.process is not None
        assert full.process.poll() is None
        assert not list(small_disk.glob("runs/*/checkpoints/step-*"))
        assert list((healthy.folder / "state").glob("runs/*/checkpoints/step-*"))
        filler.unlink()
        mesh.until(lambda: "disk" not in problems(mesh, full), 60)
        mesh.until(lambda: list(small_disk.glob(f"kept/runs/{run}")), 60)
        again = mesh.submit(full, toy_pipeline(steps=1), nonce="2")
        mesh.until(lambda: mesh.ask(full, "run", run=again)["state"] == "done", 90)
        assert list(small_disk.glob(f"runs/{again}/checkpoints/step-*"))


def test_a_run_that_a_full_disk_refused_is_nowhere_and_a_cancel_says_that_it_is_done(
    small_disk: Path, tmp_path: Path
) -> None:
    """Whoever is told no tries elsewhere, and must not have the run twice; what cannot be taken back is told."""
    mesh = Mesh(tmp_path / "mesh", 2)
    del mesh.nodes["n0"]
    node = mesh.nodes["n1"]
    with mesh:
        going = mesh.submit(node, toy_pipeline(steps=5000, generate_s=0.1))
        filler = fill(small_disk)
        with pytest.raises(Refused, match="is not taken: this daemon could not write it"):
            mesh.submit(node, toy_pipeline(), nonce="2")
        mesh.until(lambda: [run["run"] for run in mesh.ask(node, "runs")["runs"]] == [going], 30)
        with pytest.raises(Refused, match=f"run {going} is cancelled all the same"):
            mesh.ask(node, "cancel", run=going)
        assert mesh.ask(node, "run", run=going)["state"] == "cancelled"
        filler.unlink()
        mesh.until(lambda: "disk" not in problems(mesh, node), 60)
        assert [path.name for path in (small_disk / "kept" / "runs").iterdir()] == [going]


def test_no_daemon_starts_on_a_full_disk_nor_with_more_memory_than_there_is(small_disk: Path, tmp_path: Path) -> None:
    """Both are mistakes of the configuration, told as such, and not found out in the middle of a run."""
    mesh = Mesh(tmp_path / "mesh", 1, '[shards]\nmemory_limit = "900 TiB"')
    node = mesh.nodes["n0"]
    mesh.write_config(node)
    assert "shards.memory_limit" in refusal(node)
    mesh = Mesh(tmp_path / "other", 1)
    node = mesh.nodes["n0"]
    mesh.write_config(node)
    node.config.write_text(node.config.read_text().replace('state_dir = "state"', f'state_dir = "{small_disk}"'))
    fill(small_disk)
    assert "node.state_dir" in refusal(node, status=1)


def refusal(node: Daemon, status: int = 2) -> str:
    """What a daemon says that does not start: two lines. With status 1 its unit starts it again."""
    command = [sys.executable, "-m", "dflowd", "run", "--config", str(node.config)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == status, ended.stderr
    error, hint = ended.stderr.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    return error
