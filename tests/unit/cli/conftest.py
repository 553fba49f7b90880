"""A folder whose mesh is one stand-in daemon that knows one run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dflow_cli.mesh.meshfiles import LocalNode, MeshFile, id_of, write_mesh
from tests.unit.cli.fakedaemon import FakeDaemon, told_rows, told_run


@pytest.fixture
def daemon() -> Iterator[FakeDaemon]:
    sample = {"step": 6, "prompt": "spell [cat]", "completion": "tac", "answer": "tac", "reward": 1.0, "node": "n0"}
    task = {"id": "6/roll/p0", "stage": "roll", "step": 6, "node": "n0", "node_id": "0" * 32, "stolen": False}
    task |= {"origin": "dealt", "started": 1.0, "ended": None, "state": "running", "seconds": 0.2}
    fake = FakeDaemon(
        {
            "wait": lambda _: told_run(),
            "run": lambda _: told_run(),
            "runs": lambda _: {"runs": [told_run(submitted_s=1.0) | {"spec": b""}]},
            "metrics": lambda _: {"rows": told_rows(6), "missing": []},
            "samples": lambda _: {"samples": [sample], "missing": ["n2"]},
            "tasks": lambda _: {"tasks": [task], "missing": []},
            "cancel": lambda params: {"run": params["run"], "state": "cancelled"},
            "resume": lambda params: {"run": params["run"], "state": "active"},
        }
    )
    with fake:
        fake.answers["nodes"] = lambda _: {"nodes": [fake.member("n0")], "missing": []}
        yield fake


@pytest.fixture
def mesh(tmp_path: Path, daemon: FakeDaemon) -> Path:
    """DIR of that mesh."""
    key = daemon.endpoint.key
    node = LocalNode("n0", id_of(key), key, 0, daemon.endpoint.address, "", str(tmp_path / "n0" / "config.toml"))
    write_mesh(tmp_path, MeshFile(True, (node,)))
    return tmp_path
