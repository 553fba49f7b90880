"""The profile's work on a mesh of daemons: ones that are started here for it, or those of a mesh that lives."""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from benchmarks.figure import Skipped
from benchmarks.scaling.hosts import SlowHosts
from benchmarks.scaling.measured import Measured, cpu_s, settled
from benchmarks.scaling.profile import Profile
from benchmarks.scaling.waits import CAUSES, on_one_clock, steps_of
from dflow_cli.errors import CliError, explain
from dflow_cli.mesh.client import Client, KeyedEndpoint
from dflow_cli.mesh.keyfiles import key_pair
from dflow_cli.mesh.meshfiles import read_mesh
from dflow_cli.mesh.reach import reach
from dflow_protocols.membership.timing import Timing
from tests.support.mesh import Daemon, Mesh
from tests.support.sites import HostMesh
from tests.support.strike import await_stable

LANES = ("bulk", "control")
MANY = 100_000  # tasks
LOOKS = 5  # in what a step's devices take
PATIENCE_S = 60.0  # for an answer of a host that is slow
STEP_TIMES = 10  # times its devices' seconds, after which a step is given up
STARTUP_S = 120.0

Call = Callable[[str, Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Member:
    """One daemon: how it is asked, and its process where that is on this machine."""

    call: Call
    pid: int | None

    def engines(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.pid).children(recursive=True) if self.pid else []
        except psutil.NoSuchProcess:
            return []


class SlowMesh(HostMesh):
    """Daemons on hosts that are slower than real ones."""

    def __init__(self, folder: Path, slow: SlowHosts, extra: str = "") -> None:
        super().__init__(folder, len(slow.net.addresses), extra, timing="lan", hosts=slow.net)
        self.slow = slow

    def launch(self, node: Daemon) -> None:
        with self.slow.on(node.name):
            super().launch(node)


@contextmanager
def started(folder: Path, nodes: int) -> Iterator[list[Member]]:
    """So many daemons of this machine, for as long as the block lasts."""
    with Mesh(folder, nodes) as mesh:
        await_stable(mesh)
        yield _members(mesh)


@contextmanager
def started_on(slow: SlowHosts, folder: Path) -> Iterator[list[Member]]:
    """A daemon on each of these hosts, for as long as the block lasts."""
    with SlowMesh(folder, slow) as mesh:
        await_stable(mesh, Timing.lan())
        yield _members(mesh)


def _members(mesh: Mesh) -> list[Member]:
    def ask(node: Daemon, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        return mesh.ask(node, method, PATIENCE_S, **params)

    return [Member(partial(ask, node), node.pid) for node in mesh.running()]


@contextmanager
def living(folder: Path, to: str) -> Iterator[list[Member]]:
    """The daemons of a mesh that is there: in `folder`, or that of the one at `to`. Nothing is started or ended. Raises
    Skipped where nobody answers."""
    with ExitStack() as stack:
        try:
            members = stack.enter_context(reach(folder.absolute(), to)).call("nodes")["nodes"]
            keys = key_pair(folder.absolute() / "client.key")
            local = {node.key: node.pid for node in (getattr(read_mesh(folder.absolute()), "nodes", ()))}
        except CliError as error:
            raise Skipped(explain(error, "no mesh to measure").replace("\n", "; ")) from error
        up = [member for member in members if member["state"] == "alive" and not member["is_drained"]]
        asked = [stack.enter_context(Client([KeyedEndpoint(member["key"], member["control"])], keys)) for member in up]
        yield [Member(client.call, local.get(member["key"])) for client, member in zip(asked, up, strict=True)]


def measure_on(members: Sequence[Member], profile: Profile, work: int, steps: int) -> Measured:
    """What these daemons do with the work of `work` nodes. Raises RuntimeError where the run did not end well."""
    asked, pipeline = members[0], profile.pipeline(work, steps)
    processes = [member.pid for member in members if member.pid]
    bytes_before, daemons_before, engines_before = _received(members), cpu_s(processes), _engines_s(members)
    params = {"spec": pipeline.canonical(), "base": "/", "name": pipeline.name, "nonce": uuid.uuid4().hex}
    run = str(asked.call("submit", params)["run"])
    step_s = profile.seconds * work / len(members)
    weights = _ended(asked, run, step_s / LOOKS, STARTUP_S + STEP_TIMES * steps * step_s)
    is_here = len(processes) == len(members)
    daemons_s = (cpu_s(processes) - daemons_before) / steps if is_here else float("nan")
    engines_s = (_engines_s(members) - engines_before) / steps if is_here else float("nan")
    rows: list[dict[str, Any]] = asked.call("metrics", {"run": run})["rows"]
    rows = sorted((row for row in rows if row["step"] > 0), key=lambda row: int(row["step"]))
    seen = steps_of(profile, pipeline, on_one_clock(asked.call("tasks", {"run": run, "limit": MANY})["tasks"]))
    moved = _received(members)
    return Measured(
        system="dflowd",
        profile=profile.name,
        nodes=len(members),
        steps=steps,
        step_s=settled([row["step_s"] for row in rows]),
        samples=profile.samples * work,
        cpu_s=daemons_s + engines_s,
        daemon_cpu_s=daemons_s,
        memory_bytes=_memory(members) if is_here else 0,
        ideal_s=settled([0.0, *(step.ideal_s for step in seen)]),
        bytes={lane: (moved[lane] - bytes_before[lane]) / steps for lane in LANES},
        stage_s=_by_stage(rows),
        waits_s={cause: sum(step.waits_s[cause] for step in seen) / max(1, len(seen)) for cause in CAUSES},
        weights=weights,
    )


def _ended(asked: Member, run: str, look_s: float, patience_s: float) -> str:
    """The weights of the run once it is over. It is cancelled where it takes longer, or nobody waits any more."""
    until = time.monotonic() + patience_s
    summary: dict[str, Any] = {"state": "active"}
    try:
        while summary["state"] == "active" and time.monotonic() < until:
            time.sleep(look_s)
            summary = asked.call("run", {"run": run})
    finally:
        if summary["state"] == "active":
            asked.call("cancel", {"run": run})
    if summary["state"] != "done":
        raise RuntimeError(f"the run of {patience_s:.0f} s at most ended as {summary['state']}")
    return str(summary["weights"])


def _received(members: Sequence[Member]) -> dict[str, float]:
    """Bytes that all daemons received since they started, by lane."""
    traffic = [member.call("status", {})["traffic"] for member in members]
    return {lane: sum(count["received"] for told in traffic for count in told[lane].values()) for lane in LANES}


def _engines_s(members: Sequence[Member]) -> float:
    """Processor seconds of the engines that live now."""
    return cpu_s([engine.pid for member in members for engine in member.engines()])


def _memory(members: Sequence[Member]) -> int:
    """Bytes of all daemons, their shards (those kept for reuse too) and their engines."""
    total = 0
    for member in members:
        told = member.call("status", {})["memory"]
        total += told["resident_bytes"] + told["shards"]["used_bytes"] + told["shards"]["recycled_bytes"]
        total += sum(engine.memory_full_info().uss for engine in member.engines())
    return int(total)


def _by_stage(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Slots' seconds a step, the first one left out."""
    seconds: dict[str, float] = defaultdict(float)
    settled_rows = rows[1:] or rows
    for row in settled_rows:
        for stage, took in row["seconds"].items():
            seconds[stage] += took / len(settled_rows)
    return dict(seconds)
