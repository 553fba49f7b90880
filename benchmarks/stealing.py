"""What is stealing worth where one host is slow?

    python benchmarks/stealing.py [--steps 4] [--slow 0.25]

Four real daemons on loopback with emulated engines, one of which is slower than the others; its engine sleeps longer.
Prints one JSON object with stealing and one without:

    ideal_s   seconds of work in a step over the sum of the speeds: nobody ever waits, nothing costs anything
    step_s    seconds of a step, the mean of all but the first (in which nobody knows yet how fast it is)
    ratio     of the two
    load      of the machine, when the run ended
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.support.mesh import Mesh
from tests.support.strike import await_stable, ended
from tests.support.toy import toy_pipeline

NODES = 4
PARTITIONS, LEAVES = 64, 32
GENERATE_S, GRADIENT_S = 0.1, 0.05


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run; see the module."""

    stealing: bool
    speeds: tuple[float, ...]
    ideal_s: float
    step_s: float
    ratio: float
    stolen: int
    weights: str
    load: float


def measure(folder: Path, steps: int, slow: float, stealing: bool) -> Outcome:
    """Run `steps` steps on a mesh with one slow host."""
    speeds = (1.0,) * (NODES - 1) + (slow,)
    mesh = Mesh(folder, NODES)
    for node, speed in zip(mesh.nodes.values(), speeds, strict=True):
        node.environment = {"DFLOWD_EMULATED_SPEED": str(speed), "DFLOWD_STEALS": "1" if stealing else "0"}
    with mesh:
        await_stable(mesh)
        asked = mesh.running()[0]
        pipeline = toy_pipeline(steps, PARTITIONS, LEAVES, 100_000, GENERATE_S, GRADIENT_S)
        run = mesh.submit(asked, pipeline)
        summary = ended(mesh, run)
        rows: list[dict[str, Any]] = mesh.ask(asked, "metrics", run=run)["rows"]
        tasks = mesh.ask(asked, "tasks", run=run)["tasks"]
    seconds = [row["step_s"] for row in rows if row["step"] > 1]
    ideal_s = (PARTITIONS * GENERATE_S + LEAVES * GRADIENT_S) / sum(speeds)
    step_s = sum(seconds) / len(seconds)
    stolen = sum(task["stolen"] for task in tasks)
    return Outcome(
        stealing,
        speeds,
        round(ideal_s, 3),
        round(step_s, 3),
        round(step_s / ideal_s, 3),
        stolen,
        summary["weights"],
        round(os.getloadavg()[0], 2),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--slow", type=float, default=0.25, help="speed of the slow host")
    chosen = parser.parse_args()
    for stealing in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(asdict(measure(Path(folder), chosen.steps, chosen.slow, stealing))), flush=True)


if __name__ == "__main__":
    main()
