"""Runs outlive what ends every daemon, and what made them fail: with a real model, by the commands of a user."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.support.dflow import SEES_S, answer, dflow, example_folder, has_reached, kill_all
from tests.support.until import until

NEEDS_A_SERVICE = """
from pathlib import Path

def share(completion, answer, **_):
    if not Path("{flag}").exists():
        raise RuntimeError("the judge does not answer")
    return sum("a" <= letter <= "m" for letter in completion) / max(1, len(completion))
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return example_folder(tmp_path / "specs")


@pytest.mark.slow
def test_a_site_is_killed_and_started_again_on_another_number_of_daemons(spec: Path) -> None:
    """Three daemons die in the middle; two are started in the same folder, later four. Nobody submits anything again,
    and the weights and evaluations are those of an undisturbed run."""
    early, folder = spec.with_name("early.yaml"), spec.parent / "m"
    undisturbed = answer("run", spec, early, "--nodes", "1", "--dir", spec.parent / "alone")
    nodes = answer("up", "--nodes", "3", "--dir", folder)["nodes"]
    try:
        run = answer("submit", spec, early, "--set", "checkpoint.every=1", "--dir", folder)["run"]
        for daemons, step in ((2, 2), (4, 4)):
            until(partial(has_reached, folder, step), SEES_S)
            kill_all(nodes)
            nodes = answer("up", "--nodes", str(daemons), "--dir", folder)["nodes"]
        whole = answer("wait", run, "--dir", folder, "--timeout", "200")
        assert (whole["state"], whole["weights"]) == ("done", undisturbed["weights"])
        assert whole["evals"] == undisturbed["evals"]
        loaded = [line for log in folder.glob("n*/log") for line in log.read_text().splitlines() if "loaded" in line]
        assert any("checkpoint.loaded" in line for line in loaded)
    finally:
        dflow("down", "--dir", folder)


def test_a_run_that_failed_goes_on_once_its_cause_is_mended(spec: Path) -> None:
    """A reward that asks a service was down: no step before it is paid for twice. What ended well is not resumed."""
    folder, flag = spec.parent / "m", spec.parent / "up"
    (spec.parent / "early.py").write_text(NEEDS_A_SERVICE.format(flag=flag))
    dflow("up", "--nodes", "1", "--dir", folder)
    try:
        short = ("--set", "params.warmup=2", "--set", "params.grpo=1")
        run = answer("submit", spec, spec.with_name("early.yaml"), *short, "--dir", folder)["run"]
        dflow("wait", run, "--dir", folder, "--timeout", "200", code=1)
        flag.touch()
        assert answer("resume", run, "--dir", folder)["state"] == "active"
        whole = answer("wait", run, "--dir", folder, "--timeout", "200")
        assert (whole["state"], whole["step"]) == ("done", 3)
        lines = [line for log in folder.glob("n*/log") for line in log.read_text().splitlines()]
        assert sum("step.advanced" in line and " step=1 " in line for line in lines) == 1
        said = dflow("resume", run, "--dir", folder, code=2)
        assert "is done: only one that failed, was stopped or is paused can be resumed" in said
        assert "hint: " in said
    finally:
        dflow("down", "--dir", folder)
