"""What a command does about runs that are not its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from dflow_cli.mesh.client import Client
from dflow_cli.own_run.ownmesh import Ground
from dflow_cli.own_run.runner import _look_around


class Daemon:
    """Answers what runs there are, and notes what it is told to stop."""

    def __init__(self, *active: str) -> None:
        self.active, self.stopped = active, list[str]()

    def call(self, method: str, params: Mapping[str, Any] | None = None, deadline_s: float = 10.0) -> dict[str, Any]:
        if method == "stop":
            self.stopped.append((params or {})["run"])
        return {"runs": [{"run": run, "name": "toy", "state": "active"} for run in self.active]}


def test_only_runs_that_lay_there_before_are_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two commands begin at once in one folder: who starts the daemons must not stop what the other one submits."""
    daemon = Daemon("a" * 32, "b" * 32)
    _look_around(cast(Client, daemon), tmp_path, Ground(False, is_fresh=True, abandoned=frozenset({"a" * 32})))
    assert daemon.stopped == ["a" * 32]
    said = capsys.readouterr().err
    assert "run aaaaaaaa (toy, whose command was killed) waits here to be resumed" in said
    assert "run bbbbbbbb (toy) goes on here beside it" in said
