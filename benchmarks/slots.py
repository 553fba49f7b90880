"""Does a host with several slots do as much at once as several hosts with one?

One daemon with so many slots against so many daemons with one slot each; real daemons on loopback, emulated engines
that sleep. Of each step but the first, a row a mesh:

    generate_s  from the first partition's start to the last one's end
    train_s     from the first leaf's start to the end of the last slice: all of the update but applying it
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from benchmarks.figure import Figure, Goal, Tell
from tests.support.mesh import Mesh
from tests.support.strike import await_stable, ended
from tests.support.toy import toy_pipeline

PARAMETERS = 300_000  # of the model: more than one slice
MOST = 1.15  # times the time of as many hosts
QUICK = {"steps": 2}


def attempt(daemons: int, slots: int, work: dict[str, Any]) -> dict[str, Any]:
    """One run on a mesh of its own."""
    with tempfile.TemporaryDirectory() as folder, Mesh(Path(folder), daemons, f"[engine]\nslots = {slots}") as mesh:
        await_stable(mesh)
        asked = mesh.running()[0]
        run = mesh.submit(asked, toy_pipeline(parameters=PARAMETERS, **work))
        summary = ended(mesh, run)
        tasks: list[dict[str, Any]] = mesh.ask(asked, "tasks", run=run)["tasks"]
    late = range(1, work["steps"])
    generate = [span(tasks, step, lambda stage, part: stage == "roll") for step in late]
    train = [span(tasks, step, lambda stage, part: stage == "learn" and part[0] in "bs") for step in late]
    return {
        "daemons": daemons,
        "slots": slots,
        "generate_s": round(statistics.median(generate), 3),
        "train_s": round(statistics.median(train), 3),
        "weights": summary["weights"],
    }


def span(tasks: list[dict[str, Any]], step: int, belongs: Callable[[str, str], bool]) -> float:
    """Seconds from the first start to the last end of the step's tasks of a kind."""
    rows = [row for row in tasks if row["step"] == step and belongs(row["stage"], row["id"].rpartition("/")[2])]
    return float(max(row["ended"] for row in rows) - min(row["started"] for row in rows))


def measure(
    tell: Tell,
    *,
    slots: Annotated[int, "of the one daemon, and daemons that it is compared with"] = 8,
    steps: Annotated[int, "of each run, with the first, which is not counted"] = 6,
    leaves: Annotated[int, "of a step, and partitions"] = 8,
    seconds: Annotated[float, "that a leaf or a partition takes"] = 0.5,
) -> list[Figure]:
    work = {"steps": steps, "leaves": leaves, "partitions": leaves, "generate_s": seconds, "gradient_s": seconds}
    found = []
    for daemons in (1, slots):
        found.append(attempt(daemons, slots // daemons, work))
        tell(found[-1])
    ours, anchor = found
    others = f"{slots} daemons of one slot"
    return [
        Figure("training part of a step", "s", ours["train_s"], others, anchor["train_s"], Goal(MOST)),
        Figure("generating part of a step", "s", ours["generate_s"], others, anchor["generate_s"], Goal(MOST)),
        Figure("same weights", "yes", float(ours["weights"] == anchor["weights"]), goal=Goal(1.0, is_least=True)),
    ]
