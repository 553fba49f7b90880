"""Two people, each with a key of their own, use one mesh at the same time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.e2e.test_submitter_leaves import SPEC
from tests.support.dflow import answer, dflow, written


def test_two_runs_at_once_both_end_in_the_weights_that_they_reach_alone(tmp_path: Path) -> None:
    """Runs share slots, not bytes; one user's run must not starve, end or change the other's."""
    mesh = tmp_path / "mesh"
    specs = {"ann": written({**SPEC, "seed": 1}, tmp_path / "s1"), "bob": written({**SPEC, "seed": 2}, tmp_path / "s2")}
    up = answer("up", "--nodes", "2", "--dir", mesh)["nodes"]
    try:
        doors = {}
        for user, node in zip(specs, up, strict=True):
            line = dflow("keys", "show", "--dir", tmp_path / user, "--name", user)
            subprocess.run(
                [sys.executable, "-m", "dflow_cli.app", "keys", "authorize", str(mesh / "allow"), "-"],
                input=line,
                text=True,
                check=True,
            )
            doors[user] = f"{node['key']}@{node['control'].removeprefix('tcp://')}"
            dflow("nodes", "--dir", tmp_path / user, "--to", doors[user])
        ids = {
            user: answer("submit", spec, "--dir", tmp_path / user, "--to", doors[user])["run"]
            for user, spec in specs.items()
        }
        ended = {user: answer("wait", run, "--timeout", "180", "--dir", tmp_path / user) for user, run in ids.items()}
        assert {user: outcome["state"] for user, outcome in ended.items()} == {"ann": "done", "bob": "done"}
        spans = {}
        for user, run in ids.items():
            tasks = answer("tasks", run, "--dir", tmp_path / user)["tasks"]
            assert {task["node"] for task in tasks} == {"n0", "n1"}
            spans[user] = (min(task["started"] for task in tasks), max(task["ended"] for task in tasks))
        assert max(began for began, _ in spans.values()) < min(end for _, end in spans.values())
        for user, spec in specs.items():
            alone = answer("run", spec, "--dir", mesh)
            assert alone["weights"] == ended[user]["weights"]
        assert ended["ann"]["weights"] != ended["bob"]["weights"]
    finally:
        dflow("down", "--dir", mesh)
