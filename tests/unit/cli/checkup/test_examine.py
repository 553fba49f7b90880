"""What `dflow doctor` looks at: everything that it is told of, and everything that this client knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from dflow_cli.checkup.diagnosis import Check
from dflow_cli.checkup.examine import examine
from tests.unit.cli.fakedaemon import FakeDaemon


def looked(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[Check]:
    monkeypatch.setattr("dflow_cli.checkup.examine._engine", lambda found: Check("engine", "here", "ok", "loads"))
    return list(examine(None, folder, ""))


def test_doctor_looks_at_the_mesh_that_a_client_knows(
    tmp_path: Path, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most clients run no daemon of their own, and `nothing is wrong` of a mesh that was not asked misleads."""
    (tmp_path / "known.json").write_text(f'["{daemon.endpoint}"]')
    looked(monkeypatch, tmp_path)
    assert "doctor" in [method for method, _ in daemon.asked]


def test_doctor_says_that_no_known_daemon_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not `0 wrong`: every other command fails there."""
    (tmp_path / "known.json").write_text(f'["{"k" * 40}@127.0.0.1:1"]')
    (wrong,) = [check for check in looked(monkeypatch, tmp_path) if check.state == "wrong"]
    assert "no daemon answered" in wrong.what


def test_doctor_warns_that_it_asked_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that knows no mesh `0 wrong` would be said of nothing at all."""
    (asked,) = [check for check in looked(monkeypatch, tmp_path) if check.subject == "daemon"]
    assert asked.state == "warning"
    assert "no mesh was asked" in asked.what
