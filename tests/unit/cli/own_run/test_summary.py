"""The last lines of a run that was stopped or has failed: whether it goes on, from where, and by which command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from dflow_cli.own_run.summary import print_next, print_stopped
from dflow_cli.runs.outcome import read_outcome
from tests.unit.cli.fakedaemon import RUN, told_run


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"state": "stopped", "step": 18, "saved": 18}, ["stopped at step 18; {again} goes on"]),
        (
            {"state": "stopped", "step": 18, "saved": 15, "problems": [{"what": "the disk is full"}]},
            ["stopped at step 18, which could not be saved: the disk is full", "saved at step 15; {again} goes on"],
        ),
        (
            {"state": "failed", "step": 7, "saved": 7},
            ["failed at step 7; {again} goes on at step 7 once the cause is mended"],
        ),
        ({"state": "stopped", "step": 0}, ["stopped at step 0: it got nowhere, and nothing of it is kept"]),
    ],
)
def test_it_says_where_the_run_goes_on(
    told: dict[str, Any], said: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody should have to look for the command."""
    print_stopped(read_outcome(told_run(**told)), tmp_path)
    again = f"dflow resume {RUN[:8]} --dir {tmp_path}"
    assert capsys.readouterr().err.splitlines() == [line.format(again=again) for line in said]


def test_what_to_type_next_works_as_it_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After `make demo` the shell does not know `dflow` yet: the first line mends that."""
    scripts = tmp_path / "my venv" / "bin"
    scripts.mkdir(parents=True)
    (scripts / "activate").touch()
    monkeypatch.setattr(sys, "prefix", str(scripts.parent))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    print_next(read_outcome(told_run()), tmp_path / ".dflow", None)
    first, *others = [line.strip() for line in capsys.readouterr().err.splitlines()[1:]]
    assert first.startswith("source 'my venv/bin/activate' ")
    assert others[0].startswith(f"dflow samples {RUN[:8]} ")
    dflow = tmp_path / "dflow"
    dflow.touch(0o755)
    print_next(read_outcome(told_run()), tmp_path / ".dflow", None)
    assert "activate" not in capsys.readouterr().err
