"""How many tasks a second do real daemons carry that cost nothing, and what does one cost them? Beside Ray and Dask.

Engines that pretend, and take no time, so what is measured is all that a task costs beside compute. A task is a call
of an engine: of ours a partition's chain of three stages, which makes three shards, each copied to a second node where
there are two; of the others a function that gives its argument back. Arms in turns, so that what else the machine does
meets all of them alike; medians over rounds. A row an arm:

    tasks_s   tasks a second: partitions over the time of their steps, of all but the first step
    cpu_ms    CPU time of all daemons' own processes a task, by /proc (engines are other processes)
    load      of the machine, when the arm ended

Ray (`ray.remote` of a function, and of an actor for each slot) and Dask (`distributed`) have as many workers on this
host as the largest mesh has nodes. What is not installed is skipped.
"""

from __future__ import annotations

import importlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import psutil

from benchmarks.figure import Figure, Goal, Tell
from tests.support.mesh import Mesh
from tests.support.strike import await_stable, ended
from tests.support.toy import toy_pipeline

STEPS = 3
PARAMETERS = 1_000  # of the model: its gradients are no part of the question
LEAVES = 4
GOAL_MS = 0.5
QUICK = {"partitions": (64,), "rounds": 1, "others": 500}
RIVALS = {"Ray tasks": "ray", "Ray actor calls": "ray", "Dask tasks": "distributed"}

Batch = Callable[[int], Any]
"""Runs so many tasks, and gives back what they gave."""


def of_ours(nodes: int, partitions: int) -> dict[str, float]:
    """One run on a mesh of its own."""
    with tempfile.TemporaryDirectory() as folder, Mesh(Path(folder), nodes, "[engine]\nslots = 1") as mesh:
        await_stable(mesh)
        asked = mesh.running()[0]
        run = mesh.submit(asked, toy_pipeline(STEPS, partitions, LEAVES, PARAMETERS))
        mesh.until(lambda: mesh.ask(asked, "run", run=run)["step"] >= 1, 60.0)
        before_s, began = daemons_s(mesh), mesh.ask(asked, "run", run=run)["step"]
        state = ended(mesh, run)["state"]
        if state != "done":
            raise RuntimeError(f"the run ended as {state}\n{mesh.story()}")
        spent_s = daemons_s(mesh) - before_s
        rows = mesh.ask(asked, "metrics", run=run)["rows"]
    seconds = sum(row["step_s"] for row in rows if row["step"] > 1)
    late = (STEPS - 1) * partitions
    return {"tasks_s": late / seconds, "cpu_ms": 1e3 * spent_s / ((STEPS - began) * partitions)}


def daemons_s(mesh: Mesh) -> float:
    """CPU seconds that its daemons have used so far, without their engines."""
    times = [psutil.Process(node.pid).cpu_times() for node in mesh.running()]
    return sum(each.user + each.system for each in times)


def same(value: int) -> int:
    return value


@contextmanager
def ray_tasks(workers: int) -> Iterator[Batch]:
    with ray_started(workers) as ray:
        task = ray.remote(same)
        yield lambda count: ray.get([task.remote(number) for number in range(count)])


@contextmanager
def ray_actor_calls(workers: int) -> Iterator[Batch]:
    class Actor:
        def same(self, value: int) -> int:
            return value

    with ray_started(workers) as ray:
        actors = [ray.remote(Actor).remote() for _ in range(workers)]
        yield lambda count: ray.get([actors[number % workers].same.remote(number) for number in range(count)])


@contextmanager
def ray_started(workers: int) -> Iterator[Any]:
    ray: Any = importlib.import_module("ray")
    ray.init("local", num_cpus=workers, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def dask_tasks(workers: int) -> Iterator[Batch]:
    distributed: Any = importlib.import_module("distributed")
    with (
        distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield lambda count: client.gather(client.map(same, range(count), pure=False))


ARMS = {"Ray tasks": ray_tasks, "Ray actor calls": ray_actor_calls, "Dask tasks": dask_tasks}


def of_rival(name: str, workers: int, count: int) -> dict[str, float]:
    """So many tasks, after as many that warm it up."""
    with ARMS[name](workers) as batch:
        batch(count)
        began = time.perf_counter()
        given = batch(count)
        seconds = time.perf_counter() - began
    assert given == list(range(count))
    return {"tasks_s": count / seconds}


def measure(
    tell: Tell,
    *,
    nodes: Annotated[tuple[int, ...], "of a mesh"] = (1, 2),
    partitions: Annotated[tuple[int, ...], "of a step"] = (64, 256, 512),
    others: Annotated[int, "tasks of each of the other systems"] = 3_000,
    rounds: Annotated[int, "times that each arm runs"] = 3,
) -> list[Figure]:
    arms: dict[tuple[str, int, int], Callable[[], dict[str, float]]] = {}
    for count in nodes:
        for size in partitions:
            arms["dflowd", count, size] = partial(of_ours, count, size)
    for name, package in RIVALS.items():
        if find_spec(package) is None:
            tell({"arm": name, "skipped": f"`{package}` is not installed: pip install -e '.[bench]'"})
            continue
        arms[name, 1, others] = partial(of_rival, name, max(nodes), others)
    found: dict[tuple[str, int, int], list[dict[str, float]]] = {arm: [] for arm in arms}
    for turn in range(rounds):
        for arm, run in arms.items():
            row = run()
            found[arm].append(row)
            shown = {name: round(value, 2) for name, value in row.items()}
            tell({"round": turn, "arm": arm[0], "nodes": arm[1], "tasks": arm[2], **shown, "load": load()})
    return figures(found)


def load() -> float:
    return round(os.getloadavg()[0], 2)


def figures(found: dict[tuple[str, int, int], list[dict[str, float]]]) -> list[Figure]:
    """Of each mesh what a second does, beside each of the others; then what a task costs."""
    rates = {arm: statistics.median(row["tasks_s"] for row in rows) for arm, rows in found.items()}
    rivals = {arm[0]: rate for arm, rate in rates.items() if arm[0] in RIVALS}
    told = []
    for (name, nodes, size), rate in rates.items():
        if name in RIVALS:
            continue
        what = f"{size} partitions on {nodes} nodes"
        told += [Figure(f"{what}: tasks", "a second", rate, rival, value) for rival, value in rivals.items()]
        if not rivals:
            told.append(Figure(f"{what}: tasks", "a second", rate))
        cpu = statistics.median(row["cpu_ms"] for row in found[name, nodes, size])
        told.append(Figure(f"{what}: CPU of daemons a task", "ms", cpu, goal=Goal(GOAL_MS)))
    return told
