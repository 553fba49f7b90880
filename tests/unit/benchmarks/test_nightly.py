"""The night's summary: a line a part, and one exit code."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.nightly import Part, nightly, of_storms, of_tests, of_worlds


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
