"""`dflow up`, `nodes`, `down` with real daemons: a mesh on this machine comes, grows, loses one and goes whole."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.dflow import answer, dflow
from tests.support.strike import is_alive
from tests.support.until import until

DEADLINE_S = 60.0


def states(folder: Path) -> dict[str, str]:
    """Name -> state, as the daemon that answers sees it."""
    return {node["name"]: node["state"] for node in answer("nodes", "--dir", folder)["nodes"]}


@pytest.fixture
def up(tmp_path: Path) -> Iterator[list[dict[str, Any]]]:
    """Two daemons in tmp_path; whatever is up there at the end is stopped."""
    yield answer("up", "--nodes", "2", "--dir", tmp_path)["nodes"]
    dflow("down", "--dir", tmp_path)


def test_a_mesh_comes_grows_and_goes_whole(up: list[dict[str, Any]], tmp_path: Path) -> None:
    """Every daemon that `up` starts is ended by `down`, the added one too."""
    assert [node["name"] for node in up] == ["n0", "n1"]
    for node in up:
        assert node["control"].startswith("tcp://127.0.0.1:")
        assert node["bulk"].startswith("tcp://127.0.0.1:")
        assert len(node["id"]) == 32
        assert Path(node["config"]).is_file()
        assert is_alive(node["pid"])
    (added,) = answer("up", "--add", "1", "--dir", tmp_path)["nodes"]
    until(lambda: states(tmp_path) == {"n0": "alive", "n1": "alive", "n2": "alive"}, DEADLINE_S)
    told = dflow("up", "--dir", tmp_path, code=2).splitlines()
    assert told[0] == f"error: {tmp_path}: a mesh is up here already"
    assert told[1].startswith("hint: ")
    dflow("down", "--dir", tmp_path)
    assert not any(is_alive(node["pid"]) for node in [*up, added])
    dflow("nodes", "--dir", tmp_path, code=3)


def test_commands_go_on_when_the_daemon_they_asked_first_is_killed(up: list[dict[str, Any]], tmp_path: Path) -> None:
    """Any daemon may be killed, also the one that was asked; the others say that it is dead."""
    os.kill(up[0]["pid"], signal.SIGKILL)
    until(lambda: states(tmp_path) == {"n0": "dead", "n1": "alive"}, DEADLINE_S)
    first, second = up
    door = f"{first['key']}@{first['control'].removeprefix('tcp://')}"
    seen = answer("nodes", "--to", door, "--dir", tmp_path)
    assert {node["id"] for node in seen["nodes"]} == {first["id"], second["id"]}


def test_a_mesh_that_was_stopped_comes_back_as_itself(tmp_path: Path) -> None:
    """`up` after `down` has the same daemons: keys and state stay in DIR."""
    before = answer("up", "--nodes", "1", "--dir", tmp_path)["nodes"]
    dflow("down", "--dir", tmp_path)
    after = answer("up", "--nodes", "1", "--dir", tmp_path)["nodes"]
    dflow("down", "--dir", tmp_path)
    assert [node["id"] for node in before] == [node["id"] for node in after]


def test_a_folder_that_cannot_be_used_is_two_lines_and_exit_code_2() -> None:
    """Wrong input names the place and the remedy."""
    told = dflow("up", "--dir", "/proc/nowhere", code=2).splitlines()
    assert told[0].startswith("error: /proc/nowhere: ")
    assert told[1].startswith("hint: ")
