"""How a mesh of its own ends with the command that started it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from dflow_cli.mesh import localmesh
from dflow_cli.mesh.meshfiles import MeshFile
from dflow_cli.own_run import ownmesh
from dflow_cli.own_run.interrupts import SAME_S, Interrupts
from tests.support.toy import toy_pipeline


def test_daemons_that_are_ended_at_once_are_ended_though_somebody_presses_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine that takes a second, and a hand does not wait so long."""
    now, told = [0.0], []

    def press() -> None:
        now[0] += 2 * SAME_S
        os.kill(os.getpid(), signal.SIGINT)

    def stop(*arguments: Any, **named: Any) -> None:
        press()
        told.append("ended")

    monkeypatch.setattr(localmesh, "start", lambda *arguments, **named: ())
    monkeypatch.setattr(localmesh, "running", lambda folder: MeshFile(False, (), is_of_run=True))
    monkeypatch.setattr(localmesh, "settled", lambda folder: None)
    monkeypatch.setattr(localmesh, "stop", stop)
    with (
        Interrupts(lambda: now[0]) as interrupts,
        pytest.raises(KeyboardInterrupt),
        ownmesh.own_mesh(tmp_path, toy_pipeline(), 1, None, interrupts),
    ):
        press()
    assert told == ["ended"]
