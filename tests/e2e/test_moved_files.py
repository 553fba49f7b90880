"""A pipeline from a machine whose disk no daemon sees: its files go along."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support.dflow import DFLOW, PATIENCE_S, answer, dflow

SHORT = ("--set", "params.warmup=2", "--set", "params.grpo=2")


def _sees_alone(folder: Path, place: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command for which `folder` lies at `place`, where everybody else finds nothing."""
    place.mkdir(exist_ok=True)
    inside = f"mount --bind {shlex.quote(str(folder))} {shlex.quote(str(place))} && exec {shlex.join(command)}"
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", inside], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


@pytest.fixture
def own_disk(tmp_path: Path) -> None:
    """Skips where a test may not mount anything."""
    (tmp_path / "a").mkdir()
    if _sees_alone(tmp_path / "a", tmp_path / "b", ["true"]).returncode:
        pytest.skip("needs the right to mount a folder, as root has it")


@pytest.mark.usefixtures("own_disk")
def test_a_run_needs_no_path_that_all_hosts_share(tmp_path: Path) -> None:
    """Code, data, configuration and tokenizer come with it, and the weights are those of hosts that have them."""
    task, there, mesh = tmp_path / "task", tmp_path / "there", tmp_path / "mesh"
    dflow("init", task)
    dflow("up", "--nodes", "2", "--dir", mesh)
    try:
        command = [*DFLOW, "submit", str(there / "pipeline.yaml"), *SHORT, "--dir", str(mesh), "--json"]
        done = _sees_alone(task, there, command)
        assert done.returncode == 0, done.stderr
        run = json.loads(done.stdout)["run"]
        told = answer("wait", run, "--dir", mesh)
        assert told["state"] == "done"
        tasks = answer("tasks", run, "--dir", mesh)["tasks"]
        assert {task["node"] for task in tasks} == {"n0", "n1"}
        again = answer("run", task / "pipeline.yaml", *SHORT, "--dir", mesh)
        assert again["weights"] == told["weights"]
    finally:
        dflow("down", "--dir", mesh)


@pytest.mark.usefixtures("own_disk")
def test_a_model_is_pushed_as_fast_as_a_client_may_send(tmp_path: Path) -> None:
    """It is larger than any burst that passes, and still no piece of it is refused and said again after half a
    minute."""
    model, there, mesh = tmp_path / "model", tmp_path / "there", tmp_path / "mesh"
    model.mkdir()
    (model / "model.safetensors").write_bytes(bytes(120 << 20))
    dflow("up", "--nodes", "2", "--dir", mesh)
    try:
        done = _sees_alone(model, there, [*DFLOW, "push", str(there), "--dir", str(mesh), "--json"])
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["nodes"] == ["n0", "n1"]
        assert "transport.flooded" not in "".join((mesh / node / "log").read_text() for node in ("n0", "n1"))
    finally:
        dflow("down", "--dir", mesh)
