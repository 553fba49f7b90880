"""What is stealing worth where one host is slow?

Four real daemons on loopback with emulated engines, one of which is slower than the others; its engine sleeps longer.
One run with stealing and one without, a row each:

    ideal_s   seconds of work in a step over the sum of the speeds: nobody ever waits, nothing costs anything
    step_s    seconds of a step, the mean of all but the first (in which nobody knows yet how fast it is)
    load      of the machine, when the run ended
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from benchmarks.figure import Figure, Goal, Tell
from tests.support.mesh import Mesh
from tests.support.strike import await_stable, ended
from tests.support.toy import toy_pipeline

NODES = 4
PARTITIONS, LEAVES = 64, 32
GENERATE_S, GRADIENT_S = 0.1, 0.05
QUICK = {"steps": 2}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run; see the module."""

    stealing: bool
    speeds: tuple[float, ...]
    ideal_s: float
    step_s: float
    stolen: int
    weights: str
    load: float


def attempt(folder: Path, steps: int, slow: float, stealing: bool) -> Outcome:
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
        stolen,
        summary["weights"],
        round(os.getloadavg()[0], 2),
    )


def measure(
    tell: Tell,
    *,
    steps: Annotated[int, "of each run"] = 4,
    slow: Annotated[float, "speed of the slow host, of 1"] = 0.25,
) -> list[Figure]:
    outcomes = []
    for stealing in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            outcomes.append(attempt(Path(folder), steps, slow, stealing))
        tell(asdict(outcomes[-1]))
    ours, without = outcomes
    return [
        Figure("a step, beside the ideal", "s", ours.step_s, "work over speed", ours.ideal_s),
        Figure("a step, beside none", "s", ours.step_s, "without stealing", without.step_s, Goal(1.0)),
        Figure("same weights", "yes", float(ours.weights == without.weights), goal=Goal(1.0, is_least=True)),
    ]
