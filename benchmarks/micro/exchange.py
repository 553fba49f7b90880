"""How fast is a gradient summed among nodes, and how soon after a death, beside PyTorch's all-reduce over gloo?

Real daemons with emulated engines, whose gradients are drawn, and summed, divided and applied in earnest, one run of
three updates after the other; and as many processes that sum as large a vector three times by gloo. The first of the
three does not count: it makes links and touches memory. Both in turns, on loopback; medians over rounds. A row a turn:

    exchange_s   ours: from the end of the last block of gradients to when every node has all reduced slices and begins
                 to apply them, the seal of them included; where nodes have different numbers of leaves the others have
                 fetched by then what there was. gloo: from a barrier to the end of the all-reduce of the slowest
    cpu_s        processor seconds of all processes together in that time; ours: to the nearest twentieth of a second

`--slower TIMES`: each node has a host of its own, with `--cores` and a link of `--gbit-s`, so many times slower than a
real one (benchmarks/scaling/hosts.py); seconds are then the hosts' own. Nobody is killed there, as how soon a death is
seen does not depend on how fast a host is.

Then one of five dies by `kill -9` in the middle: `next_s` is from then to the next update that all others have. gloo's
processes that live get an error, or wait for as long as its timeout says (30 minutes without a setting, as the manual
of `init_process_group` has it); four new ones read the parameters from a file, and sum again.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread, Timer
from typing import Annotated, Any, Literal, Self

import numpy as np

from benchmarks.figure import Figure, Goal, Skipped, Tell
from benchmarks.mesh_bytes import without_stealing
from benchmarks.scaling.hosts import Host, SlowHosts
from benchmarks.scaling.measured import cpu_s
from benchmarks.scaling.mesh import SlowMesh
from dflow_protocols.membership.timing import Timing
from dflow_protocols.pipeline import Pipeline
from dflow_protocols.simulator.toy import with_bfloat16
from dflowd.boot.facts import memory_of_host
from tests.support.mesh import Mesh
from tests.support.strike import await_stable, ended, running_tasks, strike
from tests.support.toy import toy_pipeline

ROOT = Path(__file__).resolve().parents[2]
QUICK = {"nodes": (2,), "parameters": 16_000_000, "rounds": 2, "killed": 0}
SUMS = 3  # updates or all-reduces of a turn; the first makes links and touches memory
ROOM_A_PARAMETER = 46  # bytes of a store (docs/operations.md)
LEAST_ROOM = 64 << 20  # bytes
MOST_OF_MEMORY = 0.8  # of what this machine has free, for all stores
RUN_S = 1_200.0  # a run of SUMS updates, or so many sums by gloo, take minutes where links are narrow
LOOK_S = 0.5  # between two questions whether a run goes on, each of which all daemons answer
SAMPLE_S = 0.05  # between two looks at the processor time of all processes
GOAL = 0.8
GLOO_S = 300.0
HANG_S = 60.0  # after which who waits for a dead peer is said to hang
HIT_S = 60.0  # in which an exchange begins

Row = dict[str, Any]


class Group:
    """Processes that sum by gloo, each on the host of one of the mesh's daemons."""

    def __init__(self, mesh: Mesh, folder: Path, name: str, size: int, parameters: int, rounds: int) -> None:
        words = [str(folder), name]
        self.processes = [
            self._start(mesh, f"n{rank}", [*words, str(rank), str(size), str(parameters), str(rounds)])
            for rank in range(size)
        ]

    def _start(self, mesh: Mesh, host: str, words: list[str]) -> subprocess.Popen[str]:
        is_apart = isinstance(mesh, SlowMesh)
        with mesh.slow.on(host) if isinstance(mesh, SlowMesh) else nullcontext():
            return subprocess.Popen(
                [sys.executable, "-m", "benchmarks.micro.gloo", *words],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "GLOO_SOCKET_IFNAME": "eth0" if is_apart else "lo"},
            )

    def rows(self, rank: int) -> Iterator[Row]:
        """What it says, to its end."""
        stream = self.processes[rank].stdout
        assert stream is not None
        yield from map(json.loads, stream)

    def ended(self) -> list[list[Row]]:
        """Of each process, what it said. Raises TimeoutError."""
        with self.limited():
            said = [list(self.rows(rank)) for rank in range(len(self.processes))]
        for process in self.processes:
            process.wait(GLOO_S)
        return said

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Raises TimeoutError where what is done meanwhile takes longer than a run of ours may; the processes are
        killed then, so that who reads what they say reads its end."""
        late = Event()

        def give_up() -> None:
            late.set()
            self.close()

        timer = Timer(RUN_S, give_up)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            if late.is_set():
                raise TimeoutError(f"what sums by gloo has not ended within {RUN_S:g} s")

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def by_gloo(mesh: Mesh, folder: Path, size: int, parameters: int) -> dict[str, float]:
    """The median all-reduce of a group, as long as its slowest process takes."""
    group = Group(mesh, folder, f"meet-{time.time_ns()}", size, parameters, SUMS)
    said = [[row for row in rows if row["event"] == "ended"][1:] for rows in group.ended()]
    if not all(said):
        raise RuntimeError("a process that sums by gloo failed")
    turns = list(zip(*said, strict=True))
    return {
        "exchange_s": statistics.median(max(row["seconds"] for row in turn) for turn in turns),
        "cpu_s": statistics.median(sum(row["cpu_s"] for row in turn) for turn in turns),
    }


def leaves_of(nodes: int) -> int:
    """A leaf a node where that is a power of two."""
    return 1 << (nodes - 1).bit_length()


def pipeline(nodes: int, parameters: int, gradient: str, updates: int) -> Pipeline:
    """So many updates without a checkpoint."""
    toy = toy_pipeline(updates, leaves_of(nodes), leaves_of(nodes), parameters, generate_s=0.02)
    chosen = toy if gradient == "float32" else with_bfloat16(toy)
    return Pipeline.from_dict({**chosen.to_dict(), "checkpoint": {"every": 0}})


def by_mesh(mesh: Mesh, parameters: int, gradient: str, nonce: str) -> dict[str, float]:
    """One run of SUMS updates."""
    nodes = mesh.running()
    with Meter(mesh) as meter:
        run = mesh.submit(nodes[0], pipeline(len(nodes), parameters, gradient, SUMS), nonce)
        began = time.monotonic()
        while mesh.ask(nodes[0], "run", run=run)["state"] == "active":
            if time.monotonic() - began > RUN_S:
                raise TimeoutError(f"the run has not ended within {RUN_S:g} s\n{mesh.story()}")
            time.sleep(LOOK_S)
        state = ended(mesh, run)["state"]
    if state != "done":
        raise RuntimeError(f"the run ended as {state}\n{mesh.story()}")
    rows = [row for row in mesh.ask(nodes[0], "tasks", run=run)["tasks"] if row["stage"] == "learn"]
    spans = [exchange([row for row in rows if row["id"].startswith(f"{step}/")]) for step in range(1, SUMS)]
    return {
        "exchange_s": statistics.median(end - began for began, end in spans),
        "cpu_s": statistics.median(meter.between(*span) for span in spans),
    }


def exchange(rows: list[Row]) -> tuple[float, float]:
    """When the last block of an update was done, and when all nodes began to apply it."""
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(row["id"].rpartition("/")[2][0], []).append(row)  # blocks, slices, applying
    return max(row["ended"] for row in parts["b"]), max(row["started"] for row in parts["a"])


class Meter(Thread):
    """Processor seconds of a mesh's processes as time goes on."""

    def __init__(self, mesh: Mesh) -> None:
        super().__init__(daemon=True)
        self._mesh, self._is_over = mesh, Event()
        self._seen: list[tuple[float, float]] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.join()

    def run(self) -> None:
        while not self._is_over.wait(SAMPLE_S):
            self._seen.append((time.time(), processor_s(self._mesh)))

    def between(self, began: float, end: float) -> float:
        first, last = (min(self._seen, key=lambda seen: abs(seen[0] - at)) for at in (began, end))
        return last[1] - first[1]


def processor_s(mesh: Mesh) -> float:
    return cpu_s([pid for node in mesh.running() for pid in (node.pid, *node.children())])


@contextmanager
def made_mesh(folder: Path, nodes: int, parameters: int, fabric: str, host: Host | None = None) -> Iterator[Mesh]:
    """On loopback, or on hosts of their own; its members are stable. Their stores have the room that a trainer needs,
    as far as this machine has memory for all: with less, shards lie on disk."""
    room = min(ROOM_A_PARAMETER * parameters, int(MOST_OF_MEMORY * memory_of_host()["available"] / nodes))
    extra = f"[engine]\nslots = 1\n[shards]\nmemory_limit = {max(room, LEAST_ROOM)}"
    with ExitStack() as stack:
        slow = stack.enter_context(SlowHosts([f"n{index}" for index in range(nodes)], host)) if host else None
        mesh = SlowMesh(folder, slow, extra) if slow else Mesh(folder, nodes, extra)
        for node in without_stealing(mesh).nodes.values():
            node.environment["DFLOWD_TRUST_FABRIC"] = fabric
        stack.enter_context(mesh)
        await_stable(mesh, Timing.lan() if slow else Timing.local())
        if slow:
            slow.hold_back()
        yield mesh


def mesh_death(mesh: Mesh, parameters: int, gradient: str) -> dict[str, float]:
    """Seconds from the kill of a daemon whose slices are being summed to the update of all others."""
    asked, victim = mesh.running()[0], mesh.running()[-1]
    run = mesh.submit(asked, pipeline(len(mesh.running()), parameters, gradient, 1), "killed")
    mesh.until(lambda: running_tasks(mesh, run, "learn", "s", since_step=0), HIT_S)
    killed_s = time.time()
    strike(mesh, victim)
    state = ended(mesh, run)["state"]
    if state != "done":
        raise RuntimeError(f"the run ended as {state}\n{mesh.story()}")
    rows = mesh.ask(asked, "tasks", run=run)["tasks"]
    return {"next_s": max(row["ended"] for row in rows if row["id"].endswith("/apply")) - killed_s}


def gloo_death(mesh: Mesh, folder: Path, size: int, parameters: int) -> dict[str, Any]:
    """The same of a group: how long those that live wait for the dead one, and until a group without it has summed."""
    np.zeros(parameters, np.float32).tofile(folder / "state")
    group = Group(mesh, folder, "dies", size, parameters, 100)
    try:
        with group.limited():
            took_s = [row["seconds"] for row, _ in zip(_ends(group.rows(0)), range(SUMS), strict=False)][-1]
            next(row for row in group.rows(0) if row["event"] == "began")
        time.sleep(took_s / 2)
        killed_s = time.time()
        group.processes[-1].kill()
        told = [_failure(group, rank, killed_s) for rank in range(size - 1)]
    finally:
        group.close()
    again = Group(mesh, folder, "again", size - 1, parameters, 1).ended()
    row: dict[str, Any] = {"noticed_s": max(at for at, _ in told) - killed_s, "error": told[0][1]}
    return row | {"next_s": max(rows[-1]["time_s"] for rows in again) - killed_s}


def _ends(rows: Iterator[Row]) -> Iterator[Row]:
    return (row for row in rows if row["event"] == "ended")


def _failure(group: Group, rank: int, killed_s: float) -> tuple[float, str]:
    """When a process gave up its dead peer, and what it said; it is killed after HANG_S."""
    process = group.processes[rank]
    try:
        process.wait(max(0.1, killed_s + HANG_S - time.time()))
    except subprocess.TimeoutExpired:
        process.kill()
        return time.time(), f"hangs for {HANG_S:g} s or longer"
    last = list(group.rows(rank))[-1]
    return last["time_s"], last.get("error", "none")


def measure(
    tell: Tell,
    *,
    nodes: Annotated[tuple[int, ...], "sizes of the meshes"] = (2, 3, 4),
    parameters: Annotated[int, "float32 of the gradient"] = 135_000_000,
    rounds: Annotated[int, "turns of each"] = 3,
    killed: Annotated[int, "nodes of the mesh of which one is killed; 0: none"] = 5,
    fabric: Annotated[Literal["encrypted", "trusted"], "what the bulk lane assumes of the network"] = "encrypted",
    gradient: Annotated[Literal["float32", "bfloat16"], "dtype of our blocks; gloo sums float32"] = "float32",
    slower: Annotated[float, "each node is a host of its own, so many times slower than a real one; 0: none is"] = 0.0,
    cores: Annotated[float, "of such a host"] = 2.0,
    gbit_s: Annotated[float, "of such a host's link, each way"] = 25.0,
) -> list[Figure]:
    if find_spec("torch") is None:
        raise Skipped("needs torch: pip install '.[engine]'")
    host = Host(slower, cores, gbit_s) if slower else None
    if host and host.lacks():
        raise Skipped(f"hosts of their own: {host.lacks()}")
    figures = []
    for count in nodes:
        with tempfile.TemporaryDirectory() as name, made_mesh(Path(name), count, parameters, fabric, host) as mesh:
            figures += compare(tell, mesh, Path(name), parameters, gradient, rounds, slower or 1.0)
    if killed and not host:
        with tempfile.TemporaryDirectory() as name, made_mesh(Path(name), killed, parameters, fabric) as mesh:
            figures.append(compare_deaths(tell, mesh, Path(name), parameters, gradient))
    return figures


def compare(
    tell: Tell, mesh: Mesh, folder: Path, parameters: int, gradient: str, rounds: int, slower: float
) -> list[Figure]:
    count = len(mesh.running())
    found: dict[str, list[dict[str, float]]] = {"dflowd": [], "gloo": []}
    for turn in range(rounds):
        for system, rows in found.items():
            is_ours = system == "dflowd"
            row = (
                by_mesh(mesh, parameters, gradient, str(turn)) if is_ours else by_gloo(mesh, folder, count, parameters)
            )
            row["exchange_s"] /= slower
            rows.append(row)
            tell({"nodes": count, "round": turn, "system": system, **shown(row)})
    rates = {
        system: 4e-6 * parameters / statistics.median(row["exchange_s"] for row in rows)
        for system, rows in found.items()
    }
    what, goal = f"gradient exchanged among {count} nodes", Goal(GOAL, is_least=True)
    return [Figure(what, "MB a second", rates["dflowd"], "gloo all-reduce", rates["gloo"], goal)]


def compare_deaths(tell: Tell, mesh: Mesh, folder: Path, parameters: int, gradient: str) -> Figure:
    count = len(mesh.running())
    theirs = gloo_death(mesh, folder, count, parameters)
    tell({"nodes": count, "killed": 1, "system": "gloo", **shown(theirs)})
    ours = mesh_death(mesh, parameters, gradient)
    tell({"nodes": count, "killed": 1, "system": "dflowd", **shown(ours)})
    what = f"from the death of one of {count} to the next update"
    return Figure(what, "s", ours["next_s"], f"gloo, restarted with {count - 1}", theirs["next_s"])


def shown(row: dict[str, Any]) -> Row:
    told = {name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}
    return told | {"load": round(os.getloadavg()[0], 2)}
