"""`dflow doctor` on real daemons: quiet where all is well, and right about what was broken on purpose."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dflow_cli.checkup import examine
from tests.support.dflow import dflow
from tests.support.strike import is_alive
from tests.support.until import until


@pytest.fixture
def up(tmp_path: Path) -> Iterator[list[dict[str, Any]]]:
    yield json.loads(dflow("up", "--nodes", "2", "--dir", tmp_path, "--json"))["nodes"]
    dflow("down", "--dir", tmp_path)


def leave_pytorch_out(patch: pytest.MonkeyPatch) -> None:
    """It takes seconds to load."""
    patch.setattr(examine, "TRY_ENGINE", "print('none', False)")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_pytorch_out(monkeypatch)


def examined(*arguments: str | Path, code: int) -> dict[tuple[str, str], dict[str, Any]]:
    """(subject, place) -> check, of `dflow doctor --json`, which ends by `code`."""
    words = ("doctor", *arguments, "--json")
    text = dflow(*words) if code == 0 else dflow(*words, code=code, of="stdout")
    return {(check["subject"], check["place"]): check for check in json.loads(text)["checks"]}


def test_a_sound_mesh_is_found_sound_and_a_killed_member_is_missed(
    up: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ports, keys, limits, clocks, versions, numerics, engine: looked at on every member."""
    checks = examined("--dir", tmp_path, code=0)
    assert {check["state"] for (subject, _), check in checks.items() if subject != "reported"} == {"ok"}  # not lateness
    subjects = {subject for subject, _ in checks}
    wanted = {"control port", "bulk port", "key", "limits", "memory", "disk", "clocks", "versions", "numerics"}
    assert wanted | {"members", "engine"} <= subjects
    assert {place for subject, place in checks if subject == "bulk port"} == {"n0", "n1"}
    leave_pytorch_out(monkeypatch)
    os.kill(up[1]["pid"], signal.SIGKILL)
    until(lambda: not is_alive(up[1]["pid"]), 60.0)  # its memory has to be given back first

    def is_missed() -> bool:
        checks = examined("--dir", tmp_path, code=1)  # this machine's own daemon ended without being asked
        assert checks["daemon", "n1"]["state"] == "wrong"
        return checks.get(("members", "n1"), {}).get("state") == "warning"

    until(is_missed, 120.0)


@pytest.mark.usefixtures("quick")
def test_a_stranger_is_told_how_to_be_let_in(up: list[dict[str, Any]], tmp_path: Path) -> None:
    """The commonest failure of a first day with several hosts."""
    door = f"{up[0]['key']}@{up[0]['control'].removeprefix('tcp://')}"
    checks = examined("--dir", tmp_path / "stranger", "--to", door, code=1)
    (mesh,) = [check for (subject, _), check in checks.items() if subject == "mesh"]
    assert mesh["state"] == "wrong"
    assert "dflow keys authorize" in mesh["mend"]


@pytest.mark.usefixtures("quick")
def test_what_keeps_a_daemon_from_starting_is_found_before_it_starts(tmp_path: Path) -> None:
    """A port that is taken, and a key that nobody lets in."""
    line = dflow("keys", "new", tmp_path / "key", "--name", "a1")
    (tmp_path / "allow").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "d.toml").write_text(
            f"""
[node]
name = "a1"
state_dir = "state"
[listen]
control = "tcp://127.0.0.1:{port}"
bulk = "tcp://127.0.0.1:0"
[mesh]
allow_list = "allow"
[trust]
key_file = "key"
"""
        )
        words = ("--config", tmp_path / "d.toml", "--dir", tmp_path)
        checks = examined(*words, code=1)
    assert checks["control port", "a1"]["state"] == "wrong"
    assert checks["key", "a1"]["state"] == "wrong"
    assert line.split()[0] in checks["key", "a1"]["mend"]
    assert not (tmp_path / "state").exists()
    (tmp_path / "allow").write_text(line)
    assert {check["state"] for check in examined(*words, code=0).values()} == {"ok"}
    (tmp_path / "key").chmod(0o644)
    checks = examined(*words, code=1)
    assert checks["configuration", str(tmp_path / "d.toml")]["mend"].startswith("chmod 600")
