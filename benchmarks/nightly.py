"""What takes a night: very many drawn worlds, a million hostile inputs, the slow tests, storms over real daemons.

    make nightly                          all of it, some hours on two cores
    make nightly SEEDS=50 DRAWS=1 STORM=1 PARTS="worlds fuzz storms"

One part after the other, whatever became of the one before. What each printed lies in out/nightly/PART.log; the summary
at the end has a line a part. Exit code 1 if one of them failed. Who stops it stops what runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.stopping import cleaned_up, ended_with_us

LOGS = Path("out/nightly")
HOSTILE = (  # tests that draw what a peer may send: bytes, frames, messages, lies beside a true run
    "tests/unit/protocols/wire",
    "tests/unit/protocols/membership/test_hostile.py",
    "tests/unit/protocols/steps/test_step_inventions.py",
    "tests/sim/test_liar.py",
)
Verdict = tuple[bool, str]  # whether it is well, and what is said of it


@dataclass(frozen=True)
class Part:
    """A command, and what its last line tells. `env`: beside what is set."""

    name: str
    command: tuple[str, ...]
    judge: Callable[[int, str], Verdict]
    env: Mapping[str, str] = field(default_factory=dict)


def of_worlds(code: int, last: str) -> Verdict:
    """Of `dflow sim --json`."""
    told = _object(last)
    if "seeds" not in told:
        return False, f"ended with {code}: {last}"
    broken = ", ".join(each["replay"] for each in told["violations"])
    return code == 0, f"{told['seeds']} seeds, {told['events']} events, violations: {broken or 'none'}"


def of_tests(code: int, last: str) -> Verdict:
    """Of pytest."""
    return code == 0, last.strip("= ")


def of_storms(code: int, last: str) -> Verdict:
    """Of a benchmark with --json, whose exit code says only whether it was measured."""
    told = _object(last)
    if told.get("skipped"):
        return True, f"skipped: {told['skipped']}"
    if code != 0 or "figures" not in told:
        return False, f"ended with {code}: {last}"
    missed = [each["figure"] for each in told["figures"] if each["holds"] is False]
    return not missed, f"{len(told['figures'])} figures, missed: {', '.join(missed) or 'none'}"


def _object(line: str) -> dict[str, Any]:
    try:
        told = json.loads(line)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def parts(seeds: int, draws: int, storm: int) -> list[Part]:
    python, there = sys.executable, os.cpu_count() or 1
    pytest = (python, "-m", "pytest", "-n", str(there), "--dist", "loadfile", "--no-loadscope-reorder")
    nemesis = (python, "-m", "benchmarks", "nemesis", "--storm", str(storm), "--json")
    return [
        Part("worlds", (str(Path(python).with_name("dflow")), "sim", "--seeds", str(seeds), "--json"), of_worlds),
        Part("fuzz", (*pytest, "-m", "draws", *HOSTILE), of_tests, {"DFLOW_TESTS_DRAW": str(draws)}),
        Part("slow", (*pytest, "-m", "slow and not peer"), of_tests),
        Part("storms", nemesis, of_storms),
        Part("network-storms", (*nemesis, "--network"), of_storms),
    ]


def run(part: Part, logs: Path) -> tuple[Verdict, float]:
    """The verdict, and the seconds that it took."""
    log, began = logs / f"{part.name}.log", time.monotonic()
    with log.open("w") as out:
        env = {**os.environ, **part.env}
        process = subprocess.Popen(part.command, stdout=out, stderr=out, env=env, start_new_session=True)
        with ended_with_us(process):
            code = process.wait()
    lines = log.read_text().splitlines()
    return part.judge(code, lines[-1] if lines else ""), time.monotonic() - began


def nightly(chosen: Sequence[Part], logs: Path) -> bool:
    """Run them all and print the summary. Whether all is well."""
    logs.mkdir(parents=True, exist_ok=True)
    rows = []
    for part in chosen:
        print(f"{part.name}: {' '.join(part.command)}", flush=True)
        (is_well, said), seconds = run(part, logs)
        rows.append((part.name, is_well, seconds, said))
    print("\nsummary")
    for name, is_well, seconds, said in rows:
        print(f"{'ok' if is_well else 'FAILED':7}{name:15}{seconds / 60:7.1f} min  {said}")
    return all(is_well for _, is_well, _, _ in rows)


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.nightly")
    parser.add_argument("--seeds", type=int, default=10_000, help="drawn worlds, each lived in two processes")
    parser.add_argument("--draws", type=int, default=200, help="times as many hostile inputs as in the short suite")
    parser.add_argument("--storm", type=int, default=40, help="runs of real daemons that are struck at random")
    parser.add_argument("--parts", nargs="*", default=[], help="only these")
    given = parser.parse_args(words)
    there = parts(given.seeds, given.draws, given.storm)
    unknown = set(given.parts) - {part.name for part in there}
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(part.name for part in there)}")
    with cleaned_up():
        return 0 if nightly([part for part in there if part.name in (given.parts or [part.name])], LOGS) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
