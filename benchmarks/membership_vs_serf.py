"""Does a mesh notice a death as soon as serf's agents do, and at no more bytes?

N real agents of serf (memberlist, the reference of SWIM with Lifeguard), then N real daemons, all with LAN times, each
in a network namespace of its own on one bridge. A row a kind and size:

    first, last   seconds from a kill -9 until the first and the last survivor say so in their logs; mean of several
                  kills, after each of which the victim is started again
    sent          bytes a node sends a second while nothing happens, by its interface: all headers are in
    memory        PSS of a process, mean
    cpu           seconds of a processor a minute, mean, while nothing happens

Needs root, Linux's `ip`, and `serf`.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Protocol

from benchmarks.figure import Figure, Goal, Skipped, Tell
from tests.support.hosts import Hosts, lacks
from tests.support.sites import HostMesh
from tests.support.until import until

KILLS = 3
START_S = 240.0  # patience: dozens of daemons load their modules at once
NOTICE_S = 60.0
SETTLE_S = 25.0  # after the last one came: news is told, members are stable
LOOK_S = 0.01
LATE = 1.1  # times serf's: one kill differs from the next by a second
QUICK = {"nodes": (5,), "idle_s": 20.0}


class Agents(Protocol):
    """Processes that watch each other, by name."""

    def pids(self) -> dict[str, int]: ...
    def kill(self, name: str) -> None: ...
    def start(self, name: str) -> None:
        """Again; returns when all have heard."""

    def log(self, name: str) -> Path: ...
    def obituary(self, name: str) -> str:
        """What a log line has that says that this one is dead."""


class Serfs:
    """serf agents, one a host."""

    def __init__(self, folder: Path, hosts: Hosts) -> None:
        self._folder, self._hosts = folder, hosts
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in hosts.addresses:
            self._launch(name)
        until(lambda: all(self._knows_all(name) for name in hosts.addresses), START_S, self._story)

    def pids(self) -> dict[str, int]:
        return {name: process.pid for name, process in self._processes.items()}

    def kill(self, name: str) -> None:
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def start(self, name: str) -> None:
        heard = {other: self._joins(other, name) for other in self._processes}
        self._launch(name)
        until(lambda: all(self._joins(other, name) > count for other, count in heard.items()), START_S, self._story)

    def log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def obituary(self, name: str) -> str:
        return f"EventMemberFailed: {name} "

    def _launch(self, name: str) -> None:
        addresses = self._hosts.addresses
        first = next(iter(addresses.values()))
        words = ["serf", "agent", f"-node={name}", f"-bind={addresses[name]}", f"-retry-join={first}", "-profile=lan"]
        with self.log(name).open("ab") as output:
            self._processes[name] = self._hosts.start(name, words, self._folder, output)

    def _knows_all(self, name: str) -> bool:
        return all(self._joins(name, other) for other in self._hosts.addresses)

    def _joins(self, name: str, other: str) -> int:
        return self.log(name).read_text().count(f"EventMemberJoin: {other} ")

    def _story(self) -> str:
        return "\n".join(self.log(name).read_text()[-2000:] for name in self._hosts.addresses)


class Daemons:
    """Our daemons, one a host."""

    def __init__(self, mesh: HostMesh) -> None:
        self._mesh = mesh

    def pids(self) -> dict[str, int]:
        return {node.name: node.pid for node in self._mesh.running()}

    def kill(self, name: str) -> None:
        node = self._mesh.nodes[name]
        os.kill(node.pid, signal.SIGKILL)
        self._mesh.kill(node)

    def start(self, name: str) -> None:
        self._mesh.launch(self._mesh.nodes[name])
        self._mesh.await_all()

    def log(self, name: str) -> Path:
        return self._mesh.nodes[name].folder / "log"

    def obituary(self, name: str) -> str:
        return f" membership.died node={self._mesh.nodes[name].id} "


@contextmanager
def serfs(folder: Path, count: int) -> Iterator[Agents]:
    with Hosts({f"n{index}": f"10.0.0.{10 + index}" for index in range(count)}) as hosts:
        yield Serfs(folder, hosts)


@contextmanager
def daemons(folder: Path, count: int) -> Iterator[Agents]:
    with HostMesh(folder, count, timing="lan") as mesh:
        yield Daemons(mesh)


def noticed(agents: Agents, victim: str) -> tuple[float, float]:
    """Seconds from a kill of the victim until the first and the last of the others say so."""
    waiting = [name for name in agents.pids() if name != victim]
    read = {name: agents.log(name).stat().st_size for name in waiting}
    words, found = agents.obituary(victim).encode(), list[float]()
    began = time.monotonic()
    agents.kill(victim)
    while waiting:
        for name in list(waiting):
            with agents.log(name).open("rb") as log:
                log.seek(read[name])
                if words in log.read():
                    found.append(time.monotonic() - began)
                    waiting.remove(name)
        if time.monotonic() - began > NOTICE_S:
            raise AssertionError(f"not within {NOTICE_S:g} s: {', '.join(waiting)} hold {victim} dead")
        time.sleep(LOOK_S)
    return found[0], found[-1]


def sent_bytes(pid: int) -> int:
    """By its network interface, since that is up."""
    for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines():
        device, _, counters = line.partition(":")
        if device.strip() == "eth0":
            return int(counters.split()[8])
    raise ValueError(f"process {pid} has no eth0")


def processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pss_mib(pid: int) -> float:
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("Pss:")) / 1024


def observe(agents: Agents, idle_s: float) -> dict[str, float]:
    """A row's figures."""
    time.sleep(SETTLE_S)
    pids = list(agents.pids().values())
    sent, busy = [sent_bytes(pid) for pid in pids], [processor_s(pid) for pid in pids]
    time.sleep(idle_s)
    sent = [sent_bytes(pid) - before for pid, before in zip(pids, sent, strict=True)]
    busy = [processor_s(pid) - before for pid, before in zip(pids, busy, strict=True)]
    row = {
        "sent_bytes_per_s": round(statistics.mean(sent) / idle_s, 1),
        "memory_mib": round(statistics.mean(map(pss_mib, pids)), 1),
        "cpu_s_per_min": round(60 * statistics.mean(busy) / idle_s, 3),
    }
    firsts, lasts = [], []
    for name in list(agents.pids())[-KILLS:]:
        first, last = noticed(agents, name)
        firsts.append(first)
        lasts.append(last)
        agents.start(name)
        time.sleep(SETTLE_S / 5)
    return {"first_s": round(statistics.mean(firsts), 2), "last_s": round(statistics.mean(lasts), 2), **row}


def measure(
    tell: Tell,
    *,
    nodes: Annotated[tuple[int, ...], "agents, then daemons"] = (5, 15, 30),
    idle_s: Annotated[float, "seconds in which nothing happens"] = 60.0,
) -> list[Figure]:
    if lacks("serf"):
        raise Skipped(lacks("serf"))
    figures = []
    for count in nodes:
        rows = {}
        for kind, started in {"serf": serfs, "dflowd": daemons}.items():
            with tempfile.TemporaryDirectory() as folder, started(Path(folder), count) as agents:
                rows[kind] = observe(agents, idle_s)
            tell({"nodes": count, "agent": kind, **rows[kind]})
        ours, anchor = rows["dflowd"], rows["serf"]
        figures += [
            Figure(f"{count} nodes: {what}", unit, ours[key], "serf", anchor[key], goal)
            for what, unit, key, goal in (
                ("the first knows of a death", "s", "first_s", Goal(LATE)),
                ("the last knows of a death", "s", "last_s", Goal(LATE)),
                ("sent by each, idle", "B/s", "sent_bytes_per_s", Goal(1.0)),
                ("memory", "MiB", "memory_mib", None),
                ("processor a minute, idle", "s", "cpu_s_per_min", None),
            )
        ]
    return figures
