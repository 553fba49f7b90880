"""A run belongs to the mesh: whoever submitted it, and the daemon that took it, may both be gone."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.dflow import answer, dflow, written
from tests.support.strike import is_alive
from tests.support.until import until

SEES_S = 60.0
ROLL = {"data": "words", "prompts": 8, "partitions": 4, "max_tokens": 4}
SPEC: dict[str, Any] = {
    "name": "toy",
    "params": {"rounds": 6},
    "steps": "rounds",
    "engine": "emulated",
    "emulated": {"generate_s": 0.2, "parameters": 300_000},
    "models": {"policy": {"init": {"config": "c.json", "tokenizer": "t"}}},
    "data": {"words": {"reasoning_gym": "spell_backward"}},
    "stages": [
        {"id": "roll", "op": "generate", "model": "policy", "config": ROLL},
        {"id": "score", "op": "reward"},
        {"id": "adv", "op": "advantage"},
        {"id": "learn", "op": "train", "model": "policy", "config": {"optimizer": {"adamw": {"lr": 1e-3}}}},
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mesh")


@pytest.fixture(scope="module")
def nodes(folder: Path) -> Iterator[list[dict[str, Any]]]:
    """Three daemons that stay, as `dflow up` tells of them, and who is added; the last test kills them all."""
    yield answer("up", "--nodes", "3", "--dir", folder)["nodes"]
    dflow("down", "--dir", folder)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return written(SPEC, tmp_path / "spec")


def kill(node: dict[str, Any]) -> None:
    os.kill(node["pid"], signal.SIGKILL)
    until(lambda: not is_alive(node["pid"]), SEES_S)


def test_a_daemon_added_by_up_takes_part(nodes: list[dict[str, Any]], folder: Path, spec: Path) -> None:
    """`dflow up --add 1` under a run: the new one runs tasks within seconds."""
    run = answer("submit", spec, "--set", "params.rounds=500", "--dir", folder)["run"]
    (added,) = answer("up", "--add", "1", "--dir", folder)["nodes"]
    nodes.append(added)

    def takes_part() -> bool:
        return any(task["node"] == added["name"] for task in answer("tasks", run, "--dir", folder)["tasks"])

    until(takes_part, SEES_S)
    assert answer("cancel", run, "--dir", folder)["state"] == "cancelled"


@pytest.mark.usefixtures("nodes")
def test_waiting_gives_up_by_code_4_and_tells_a_cancelled_run_by_code_1(folder: Path, spec: Path) -> None:
    """Scripts tell by exit codes what happened."""
    run = answer("submit", spec, "--set", "params.rounds=500", "--dir", folder)["run"]
    dflow("wait", run, "--dir", folder, "--timeout", "0.5", code=4)
    dflow("cancel", run, "--dir", folder)
    dflow("wait", run, "--dir", folder, code=1)


def key_of(node: dict[str, Any]) -> str:
    """A daemon's public key, as the allow-list beside its folder has it."""
    allow = Path(node["config"]).parent.parent / "allow"
    return next(line.split()[0] for line in allow.read_text().splitlines() if line.split()[1] == node["name"])


def test_a_run_ends_without_its_submitter_and_its_daemon(nodes: list[dict[str, Any]], folder: Path, spec: Path) -> None:
    """The command that submitted has long returned, the daemon that it spoke to is killed: `wait` asks the others."""
    undisturbed = answer("run", spec, "--dir", folder)
    taken_by = f"{key_of(nodes[0])}@{nodes[0]['control'].removeprefix('tcp://')}"
    run = answer("submit", spec, "--to", taken_by, "--dir", folder)["run"]
    kill(nodes[0])
    for reach in (("--dir", folder), ("--to", taken_by, "--dir", folder)):
        whole = answer("wait", run, *reach, "--timeout", "120")
        assert (whole["state"], whole["step"], whole["weights"]) == ("done", 6, undisturbed["weights"])
    assert {"run": run, "state": "done"}.items() <= next(
        row for row in answer("ps", "--dir", folder)["runs"] if row["run"] == run
    ).items()
    for node in nodes[1:]:
        kill(node)
    dflow("nodes", "--dir", folder, code=3)
