"""What does the mesh cost beside compute? Real daemons and engines against plain loops that compute the same.

Four arms, taken in turn in each round, so that what else the machine does meets all of them alike:

    plain        one plain PyTorch loop (benchmarks/plain_training.py)
    one          one daemon with one engine
    unconnected  two plain loops at the same time, each a run of its own
    two          two daemons with one engine each

An arm's figure is the median time of its steps, without the first ones, in which models load; the results are medians
over rounds. One daemon takes the time of one loop and a little more (goal: at most 1.05 times). Two daemons make as
many steps as the unconnected loops together (goal: at least 0.93 of them). Goals are for steps of a second or more on
a machine that does nothing else; the load before and after is told, and a word where it is high. `cpu_s` is the
processor time of a step (daemons and engines together, or the loops' mean), which others' work hardly changes. `mesh_s`
and `seconds` in the rows are those of `dflow metrics`.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from math import nan
from pathlib import Path
from typing import Annotated

import psutil

from benchmarks.figure import Figure, Goal, Tell
from benchmarks.plain_loop import RUN_S, WARM_STEPS, Arm, chosen_spec, loops, need_engine, spans
from dflow_cli.spec.specfile import Loaded, load
from tests.support.mesh import Daemon, Mesh
from tests.support.strike import await_stable

ARMS = ("plain", "one", "unconnected", "two")
ASK_EVERY_S = 0.5  # while it is measured, as answers are work, too
WARM_ASK_S = 0.05  # before, so that what is measured begins with a step
HIGH_LOAD = 0.5  # before an arm starts: somebody else computes here
QUICK = {"steps": 3, "rounds": 1}


def meshed(loaded: Loaded, nodes: int) -> Arm:
    """A mesh of daemons with one engine each."""
    with tempfile.TemporaryDirectory() as folder, Mesh(Path(folder), nodes, "[engine]\nslots = 1") as mesh:
        await_stable(mesh)
        asked = mesh.running()[0]
        spec, base = loaded.pipeline.canonical(), str(loaded.base)
        run = str(mesh.ask(asked, "submit", spec=spec, base=base, name="overhead", nonce="1")["run"])
        first = await_step(mesh, asked, run, WARM_STEPS + 1, WARM_ASK_S)
        before_s = processor_s(mesh)
        counted = await_step(mesh, asked, run, loaded.pipeline.schedule.steps, ASK_EVERY_S) - first
        cpu_s = (processor_s(mesh) - before_s) / counted if counted else nan
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


def await_step(mesh: Mesh, asked: Daemon, run: str, step: int, every_s: float) -> int:
    """Wait until the run is at `step`, or further: where it is."""
    until_s = time.monotonic() + RUN_S
    while (at := (told := mesh.ask(asked, "run", run=run))["step"]) < step:
        if time.monotonic() > until_s or told["state"] not in ("active", "done"):
            raise TimeoutError(f"the run is {told['state']} at step {at}\n{mesh.story()}")
        time.sleep(every_s)
    return int(at)


def processor_s(mesh: Mesh) -> float:
    """Processor seconds that its daemons and engines have used so far."""
    pids = [pid for node in mesh.running() for pid in (node.pid, *node.children())]
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(each.user + each.system for each in times)


def median(values: list[float]) -> float:
    return round(statistics.median(values), 4)


def load_average() -> float:
    return round(os.getloadavg()[0], 2)


def measure(
    tell: Tell,
    *,
    spec: Annotated[str, "pipeline; the example without it"] = "",
    set: Annotated[tuple[str, ...], "KEY=VALUE of the pipeline"] = (),
    steps: Annotated[int, "counted ones of an arm"] = 12,
    rounds: Annotated[int, "times that each arm runs"] = 3,
) -> list[Figure]:
    need_engine()
    in_all = WARM_STEPS + 1 + steps
    path, sets = chosen_spec(spec, set, in_all)
    loaded = load(path, (), sets)
    step_s: dict[str, list[float]] = {arm: [] for arm in ARMS}
    cpu_s: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for turn in range(rounds):
        for arm in ARMS:
            before = load_average()
            if not turn and arm == ARMS[0] and before > HIGH_LOAD:
                tell({"busy": f"the load was {before} before this began: figures of a machine that works otherwise"})
            count = 1 if arm in ("plain", "one") else 2
            is_plain = arm in ("plain", "unconnected")
            found = loops(path, sets, in_all, count) if is_plain else meshed(loaded, count)
            step_s[arm].append(median(found.steps_s))
            cpu_s[arm].append(found.cpu_s)
            row = {"round": turn, "arm": arm, "step_s": step_s[arm][-1], "cpu_s": round(found.cpu_s, 4), **found.told}
            tell(row | {"load_before": before, "load_after": load_average()})
    middle = {arm: statistics.median(values) for arm, values in step_s.items()}
    used = {arm: statistics.median(values) for arm, values in cpu_s.items()}
    rates = {arm: 1 / middle[arm] for arm in ARMS}
    return [
        Figure("a step, one daemon", "s", middle["one"], "a plain loop", middle["plain"], Goal(1.05)),
        Figure(
            "steps, two daemons",
            "a second",
            rates["two"],
            "two unconnected loops",
            2 * rates["unconnected"],
            Goal(0.93, is_least=True),
        ),
        Figure("steps, two daemons, beside one", "a second", rates["two"], "one daemon", rates["one"]),
        Figure("processor time of a step, one daemon", "s", used["one"], "a plain loop", used["plain"]),
        Figure("processor time of a step, two daemons", "s", used["two"], "two unconnected loops", used["unconnected"]),
    ]
