"""How soon do daemons hear of claims, results and copies, with little and with much on the bulk lane?

Two real daemons whose engines pretend. What they remember of every task (`dflow story`) is joined over both, and both
have one clock here:

    claim       a node says that a task will run there, until the other one has taken that
    completion  a call has ended, until the other node has taken the record of what it made
    copies      the last partition of a step has ended, until its outputs lie on both nodes and a seal is proposed
    answer      a client asks a daemon something small, and has the answer

The same run twice: with outputs of some KB a partition, and with MB, all of which the other node copies while engines
make the next. Beside that how late a daemon's loop was at worst, by its own metrics, its private memory for every
10,000 tasks, and how soon one that is started is alive to all. A fetch alone is `micro/fetch`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from benchmarks.figure import Figure, Skipped, Tell
from benchmarks.mesh_bytes import received
from benchmarks.mesh_memory import memory_mb
from tests.support.mesh import Daemon, Mesh
from tests.support.strike import await_stable, ended
from tests.support.toy import toy_pipeline

PARTITIONS = 32
ROLLOUTS = 16  # of a partition
SLOT = "[engine]\nslots = 1\n[observe]\nlisten = 0"
ASK_EVERY_S = 0.02
PARAMETERS = 1_000  # of the model: gradients are no part of the question
SMALL_PARTITIONS = 512  # of a step, where tasks are counted
HALVES = 2
STORY_ROWS = 100_000
PER_TASKS = 10_000
SHARES = ((0.5, "median"), (0.99, "p99"))
ENOUGH = 20  # times, for their 99th percentile to say anything
QUICK = {"steps": 2, "tasks": 2_048, "starts": 2}

Times: TypeAlias = dict[str, list[float]]
"""What is measured -> milliseconds."""


def measure(
    tell: Tell,
    *,
    steps: Annotated[int, "of each run"] = 5,
    mib: Annotated[float, "MiB that a partition makes, where the lane is to be full"] = 16.0,
    tasks: Annotated[int, "after which a daemon's memory is compared with that after half of them"] = 10_240,
    starts: Annotated[int, "of a daemon"] = 5,
) -> list[Figure]:
    if find_spec("prometheus_client") is None:
        raise Skipped("a daemon tells its lag by `prometheus_client`: pip install -e '.[prometheus]'")
    little, much = (of_a_run(tell, steps, size) for size in (0.0, mib))
    figures = compared(much, little, mib)
    figures.append(Figure(f"memory of a daemon for {PER_TASKS} tasks", "MB", memory_of_tasks(tell, tasks)))
    started = start_times(starts)
    tell({"daemon": "alive to all", "s": f"{statistics.median(started):.2f} ({min(started):.2f}-{max(started):.2f})"})
    figures.append(Figure("a daemon's start, until it is alive to all", "s", statistics.median(started)))
    return figures


def compared(much: Times, little: Times, mib: float) -> list[Figure]:
    """Of what both runs saw: with one node ahead of the other all along, neither may hear of a claim."""
    figures = []
    for what in (what for what, times in much.items() if times and little[what]):
        for share, name in SHARES if len(much[what]) >= ENOUGH else SHARES[:1]:
            ours, beside = quantile(much[what], share), quantile(little[what], share)
            figures.append(Figure(f"{what}, {name}, {mib:g} MiB a partition", "ms", ours, "some KB", beside))
    return figures


def of_a_run(tell: Tell, steps: int, mib: float) -> Times:
    """Of one run on a mesh of its own whose partitions make so many MiB each."""
    with tempfile.TemporaryDirectory() as folder, Mesh(Path(folder), 2, SLOT) as mesh:
        await_stable(mesh)
        asked, other = mesh.running()
        sample_bytes = round(mib * (1 << 20) / ROLLOUTS)
        pipeline = toy_pipeline(steps, PARTITIONS, parameters=PARAMETERS, sample_bytes=sample_bytes)
        began, before = time.perf_counter(), sum(received(mesh, "bulk").values())
        run = mesh.submit(asked, pipeline)
        answers = answer_times(mesh, other, run)
        seconds, moved = time.perf_counter() - began, sum(received(mesh, "bulk").values()) - before
        state = ended(mesh, run)["state"]
        if state != "done":
            raise RuntimeError(f"the run ended as {state}\n{mesh.story()}")
        times = joined(mesh.ask(asked, "story", run=run, limit=STORY_ROWS)["entries"])
        times |= {"answer": answers, "lag of the loop": [max(map(lag_ms, mesh.running()))]}
    tell({"MiB": mib, "lane GB_s": round(moved / 1e9 / seconds, 3), **{what: len(it) for what, it in times.items()}})
    return times


def lag_ms(node: Daemon) -> float:
    """As the daemon's metrics tell it, of the last one or two minutes."""
    (line,) = (line for line in node.log_lines() if "exporter.listening" in line)
    port = line.partition("port=")[2].split()[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as page:
        lines = page.read().decode().splitlines()
    return 1e3 * next(float(line.split()[1]) for line in lines if line.startswith("dflowd_loop_lag_seconds "))


def answer_times(mesh: Mesh, node: Daemon, run: str) -> list[float]:
    """Of small questions, as long as the run lasts."""
    times, state = list[float](), "active"
    while state == "active":
        asked = time.perf_counter()
        state = mesh.ask(node, "run", run=run)["state"]
        times.append(1e3 * (time.perf_counter() - asked))
        time.sleep(ASK_EVERY_S)
    return times


def joined(entries: Sequence[Mapping[str, Any]]) -> Times:
    """From what all nodes remember, in the order of their clocks: how long each thing took to become known."""
    times: Times = {"claim": [], "completion": [], "copies": []}
    claimed: dict[tuple[str, str], float] = {}  # by node and task, until it is heard of
    finished: dict[tuple[str, str], float] = {}
    rolled: dict[str, float] = {}  # by step, when the last of its partitions so far had ended
    for entry in entries:
        at, what = entry["time_s"], entry["what"]
        for task in entry["tasks"]:
            mine, theirs = (entry["node_id"], task), [(peer, task) for peer in entry["peers"]]
            step, _, part = task.partition("/")
            if what == "claimed":
                claimed.setdefault(mine, at)
            elif what == "finished":
                finished.setdefault(mine, at)
                if part.rpartition("/")[2].startswith("p"):
                    rolled[step] = at
            elif what == "claim heard":
                times["claim"] += [1e3 * (at - claimed.pop(each)) for each in theirs if each in claimed]
            elif what == "record heard":
                times["completion"] += [1e3 * (at - finished.pop(each)) for each in theirs if each in finished]
            elif what == "seal proposed" and step in rolled:
                times["copies"].append(1e3 * (at - rolled.pop(step)))
    return times


def quantile(times: Sequence[float], share: float) -> float:
    return sorted(times)[int(share * len(times))]


def memory_of_tasks(tell: Tell, tasks: int) -> float:
    """MB that the private memory of two daemons grew by, in the second half of so many tasks, for PER_TASKS of them."""
    steps = HALVES * max(1, round(tasks / SMALL_PARTITIONS / HALVES))
    with tempfile.TemporaryDirectory() as folder, Mesh(Path(folder), 2, SLOT) as mesh:
        await_stable(mesh)
        asked = mesh.running()[0]
        run = mesh.submit(asked, toy_pipeline(steps, SMALL_PARTITIONS, parameters=PARAMETERS))
        mesh.until(lambda: mesh.ask(asked, "run", run=run)["step"] >= steps // HALVES, 600.0)
        half = [memory_mb(node.pid)["Pss_Anon"] for node in mesh.running()]
        ended(mesh, run)
        whole = [memory_mb(node.pid)["Pss_Anon"] for node in mesh.running()]
    tell({"tasks": steps * SMALL_PARTITIONS, "MB after half": [round(each, 1) for each in half], "MB": whole})
    grown = statistics.mean(after - before for before, after in zip(half, whole, strict=True))
    return grown / (steps * SMALL_PARTITIONS / HALVES) * PER_TASKS


def start_times(count: int) -> list[float]:
    """Seconds from a daemon's start until it and the one that was there see each other alive."""
    times = []
    with tempfile.TemporaryDirectory() as folder, Mesh(Path(folder), 2) as mesh:
        node = mesh.running()[1]
        for _ in range(count):
            mesh.terminate(node)
            began = time.perf_counter()
            mesh.launch(node)
            mesh.await_all()
            times.append(time.perf_counter() - began)
    return times
