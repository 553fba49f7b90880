"""What does the mesh cost beside compute? Real daemons and engines against plain loops that compute the same.

    python -m benchmarks.overhead [--spec FILE] [--set KEY=VALUE ...] [--steps 12] [--rounds 3]

Four arms, taken in turn in each round, so that what else the machine does meets all of them alike:

    plain      one plain PyTorch loop (benchmarks/plain_loop.py)
    one        one daemon with one engine
    unconnected  two plain loops at the same time, each a run of its own
    two        two daemons with one engine each

An arm's figure is the median time of its steps, without the first ones, in which models load; the results are medians
over rounds. `overhead` is one / plain - 1 (goal: at most 0.10). `share` is how many steps two daemons make in the time
in which the unconnected loops together make one (goal: at least 0.9). Goals are meant for steps of a second or more on
a machine that does nothing else; the load before and after is printed, and a word where it is high. `cpu_s` is the
processor time of a step (daemons and engines together, or the loops' mean), which others' work hardly changes. Prints
one JSON object an arm and one at the end; `mesh_s` and `seconds` are those of `dflow metrics`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from dflow_cli.specfile import Loaded, load
from tests.support.mesh import Daemon, Mesh
from tests.support.strike import await_stable

ROOT = Path(__file__).resolve().parents[1]
# Every group is trained on, whatever its rewards, so that a step's work is the same from the first one on: about two
# seconds on one core, and so one on each of two.
DEFAULT_SPEC = ROOT / "examples" / "spell_backward.yaml"
DEFAULT_SETS = (
    "params.warmup=0",
    "stages.roll.config.prompts=192",
    "stages.adv.config.drop_flat_groups=false",
    "stages.heldout.every=1000",
    "checkpoint.every=0",
)
WARM_STEPS = 2  # of each arm, not counted
RUN_S = 900.0
ASK_EVERY_S = 0.5
HIGH_LOAD = 0.5  # before an arm starts: somebody else computes here


@dataclass(frozen=True, slots=True)
class Arm:
    """Of the counted steps: seconds of each, processor seconds of one, and where they went."""

    steps_s: list[float]
    cpu_s: float
    told: dict[str, Any] = field(default_factory=dict)


def plain(specs: list[str], steps: int, loops: int) -> Arm:
    """`loops` plain loops that run at the same time."""
    command = [sys.executable, "-m", "benchmarks.plain_loop", *specs, "--steps", str(steps)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
        for _ in range(loops)
    ]
    told = [loop.communicate(timeout=RUN_S)[0] for loop in running]
    if any(loop.returncode for loop in running):
        raise RuntimeError(f"a plain loop failed: {' '.join(command)}")
    rows = [[json.loads(line) for line in text.splitlines()] for text in told]
    cpu_s = statistics.mean(loop[-1]["cpu_s"] - loop[WARM_STEPS]["cpu_s"] for loop in rows)
    ends = [spans([row["time_s"] for row in loop]) for loop in rows]
    return Arm([seconds for loop in ends for seconds in loop], cpu_s / len(ends[0]))


def meshed(loaded: Loaded, nodes: int) -> Arm:
    """A mesh of daemons with one engine each."""
    with tempfile.TemporaryDirectory() as folder, Mesh(Path(folder), nodes, "[engine]\nslots = 1") as mesh:
        await_stable(mesh)
        asked = mesh.running()[0]
        spec, base = loaded.pipeline.canonical(), str(loaded.base)
        run = str(mesh.ask(asked, "submit", spec=spec, base=base, name="overhead", nonce="1")["run"])
        first = await_step(mesh, asked, run, WARM_STEPS + 1)
        before_s = processor_s(mesh)
        counted = await_step(mesh, asked, run, loaded.pipeline.schedule.steps) - first
        cpu_s = (processor_s(mesh) - before_s) / counted
        mesh.until(lambda: mesh.ask(asked, "run", run=run)["state"] != "active", RUN_S)
        state = mesh.ask(asked, "run", run=run)["state"]
        if state != "done":
            raise RuntimeError(f"the run ended as {state}\n{mesh.story()}")
        rows = mesh.ask(asked, "metrics", run=run)["rows"]
    rows = [row for row in rows if row["step"] > 0]  # without version 0
    late = rows[WARM_STEPS + 1 :]
    stages = sorted({stage for row in late for stage in row["seconds"]})
    where = {stage: median([row["seconds"].get(stage, 0.0) for row in late]) for stage in stages}
    told = {"mesh_s": median([row["mesh_s"] for row in late]), "seconds": where}
    return Arm(spans([row["time_s"] for row in rows]), cpu_s, told)


def await_step(mesh: Mesh, asked: Daemon, run: str, step: int) -> int:
    """Wait until the run is at `step`, or further: where it is. Asks rarely, since answers are work, too."""
    until_s = time.monotonic() + RUN_S
    while (at := int(mesh.ask(asked, "run", run=run)["step"])) < step:
        if time.monotonic() > until_s:
            raise TimeoutError(mesh.story())
        time.sleep(ASK_EVERY_S)
    return at


def processor_s(mesh: Mesh) -> float:
    """Processor seconds that its daemons and engines have used so far."""
    pids = [pid for node in mesh.running() for pid in (node.pid, *node.children())]
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(each.user + each.system for each in times)


def spans(ends: list[float]) -> list[float]:
    """Seconds between the ends of consecutive steps, the first ones aside."""
    return [after - before for before, after in itertools.pairwise(ends)][WARM_STEPS:]


def median(values: list[float]) -> float:
    return round(statistics.median(values), 4)


def load_average() -> float:
    return round(os.getloadavg()[0], 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="sets")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    steps = WARM_STEPS + 1 + chosen.steps
    path = chosen.spec or DEFAULT_SPEC
    sets = [*(() if chosen.spec else (*DEFAULT_SETS, f"params.grpo={steps}")), *chosen.sets]
    loaded = load(path, (), sets)
    specs = [str(path), *(part for text in sets for part in ("--set", text))]
    figures: dict[str, list[float]] = {"plain": [], "one": [], "unconnected": [], "two": []}
    cpu_s: dict[str, list[float]] = {arm: [] for arm in figures}
    loads: list[float] = []
    for turn in range(chosen.rounds):
        for arm in figures:
            loads.append(load_average())
            one_run = arm in ("plain", "one")
            if arm in ("plain", "unconnected"):
                found = plain(specs, steps, 1 if one_run else 2)
            else:
                found = meshed(loaded, 1 if one_run else 2)
            figures[arm].append(median(found.steps_s))
            cpu_s[arm].append(found.cpu_s)
            row = {"round": turn, "arm": arm, "step_s": figures[arm][-1], "cpu_s": round(found.cpu_s, 4), **found.told}
            print(json.dumps(row | {"load_before": loads[-1], "load_after": load_average()}), flush=True)
    middle = {arm: median(values) for arm, values in figures.items()}
    result = {
        "step_s": middle,
        "cpu_s": {arm: median(values) for arm, values in cpu_s.items()},
        "overhead": round(middle["one"] / middle["plain"] - 1, 4),
        "share": round(middle["unconnected"] / (2 * middle["two"]), 4),
        "two_over_one": round(middle["one"] / middle["two"], 3),
        "load": [min(loads), max(loads)],
    }
    print(json.dumps(result))
    if loads[0] > HIGH_LOAD:
        print(
            f"the load was {loads[0]} before this began: figures of a machine that is busy otherwise", file=sys.stderr
        )


if __name__ == "__main__":
    main()
