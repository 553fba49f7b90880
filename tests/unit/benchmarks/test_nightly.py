"""The night's summary: a line a part, and one exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.nightly import Part, nightly, of_storms, of_tests, of_worlds

PATIENCE_S = 60.0
NIGHT = """
import sys
from pathlib import Path
from benchmarks.nightly import Part, nightly, of_tests
from benchmarks.stopping import cleaned_up

with cleaned_up():
    nightly([Part("slow", (sys.executable, "-c", *sys.argv[1:3]), of_tests)], Path(sys.argv[3]))
"""
DAEMON = "import sys, time; print(1, file=open(sys.argv[1], 'w'), flush=True); time.sleep(600)"
WITH_A_DAEMON = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {DAEMON!r}, *sys.argv[1:]])"


def says(line: str, code: int = 0) -> tuple[str, ...]:
    return (sys.executable, "-c", f"print({line!r}); raise SystemExit({code})")


def test_a_part_that_fails_hides_none_of_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A night is too long to begin again for each fault."""
    chosen = [Part("slow", says("1 failed, 2 passed", 1), of_tests), Part("fuzz", says("9 passed"), of_tests)]
    assert not nightly(chosen, tmp_path)
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert first.split()[:2] == ["FAILED", "slow"]
    assert first.endswith("1 failed, 2 passed")
    assert second.split()[:2] == ["ok", "fuzz"]
    assert (tmp_path / "fuzz.log").read_text() == "9 passed\n"


def test_who_stops_a_night_stops_what_runs_and_what_that_started(tmp_path: Path) -> None:
    """Its daemons and simulators would go on on every core, with nobody to tell."""
    said = tmp_path / "said"
    os.mkfifo(said)
    night = subprocess.Popen([sys.executable, "-c", NIGHT, WITH_A_DAEMON, str(said), str(tmp_path)])
    with said.open() as daemon:
        assert daemon.readline() == "1\n"
        night.send_signal(signal.SIGTERM)
        assert daemon.read() == ""  # until nobody has it open
    assert night.wait(PATIENCE_S) == 128 + signal.SIGTERM


def test_a_broken_promise_is_in_the_summary_with_its_command() -> None:
    """Who reads it in the morning types that."""
    told = {"seeds": 2, "events": 9, "violations": [{"replay": "dflow sim --first-seed 1"}]}
    assert of_worlds(1, json.dumps(told)) == (False, "2 seeds, 9 events, violations: dflow sim --first-seed 1")
    assert not of_worlds(1, "Traceback")[0]


def test_a_benchmark_whose_goal_is_missed_has_failed_and_one_that_cannot_run_has_not() -> None:
    """Its exit code says only that it was measured."""
    figures = [{"figure": "weights", "holds": False}, {"figure": "seconds", "holds": None}]
    assert of_storms(0, json.dumps({"figures": figures})) == (False, "2 figures, missed: weights")
    assert of_storms(0, json.dumps({"skipped": "needs root", "figures": []})) == (True, "skipped: needs root")
