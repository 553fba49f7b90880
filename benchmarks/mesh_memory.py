"""How much memory does a local mesh take, and in which process?

Watches a mesh from beside until its last daemon is gone (or Ctrl-C): that of `--folder`, which is the DIR of a `dflow
run` or `dflow up`, started before or soon after; without it, three daemons that train the example for six steps. In
MB, the highest of each seen at once:

    daemon, engine  private memory of one process
    shared          shared memory of the whole machine beyond what it had at first: shards, wherever mapped
    together        private memory of all daemons and engines, and that shared memory
    mapped files    of one engine: libraries, and a reference's weights
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import psutil

from benchmarks.figure import Figure, Tell
from benchmarks.plain_loop import DEFAULT_SPEC, need_engine
from dflow_cli.mesh.meshfiles import read_mesh

APPEARS_S = 60.0  # for a mesh in DIR
SETS = ("params.warmup=2", "params.grpo=4")
NODES = 3
QUICK: dict[str, object] = {}


def memory_mb(pid: int) -> dict[str, float]:
    """Proportional sizes by kind (`Pss_Anon`, `Pss_Shmem`, `Pss_File`) of a process; empty when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return {}
    return {name: int(rest.split()[0]) / 1024 for name, _, rest in (line.partition(":") for line in lines[1:])}


def machine_shared_mb() -> float:
    text = Path("/proc/meminfo").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Shmem:")) / 1024


def living(folder: Path) -> list[psutil.Process]:
    """The daemons that DIR speaks of and that run."""
    mesh = read_mesh(folder)
    found = []
    for node in mesh.nodes if mesh is not None else ():
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(node.pid) if node.pid else None
            if process is not None and node.config in process.cmdline():
                found.append(process)
    return found


def sample(daemons: list[psutil.Process], shared_mb: float) -> dict[str, float]:
    children = []
    for daemon in daemons:
        with contextlib.suppress(psutil.NoSuchProcess):
            children += daemon.children()
    own = [memory_mb(process.pid) for process in daemons]
    engines = [memory_mb(process.pid) for process in children]
    shared = machine_shared_mb() - shared_mb
    return {
        "daemon": max((each.get("Pss_Anon", 0.0) for each in own), default=0.0),
        "engine": max((each.get("Pss_Anon", 0.0) for each in engines), default=0.0),
        "shared": shared,
        "together": sum(each.get("Pss_Anon", 0.0) for each in [*own, *engines]) + shared,
        "mapped files": max((each.get("Pss_File", 0.0) for each in engines), default=0.0),
    }


def watch(folder: Path, seconds: float) -> dict[str, float]:
    """The peaks of the mesh in `folder`, from when it appears until it is gone."""
    shared_mb = machine_shared_mb()
    began = time.monotonic()
    peak: dict[str, float] = {}
    with contextlib.suppress(KeyboardInterrupt):
        while (daemons := living(folder)) or (not peak and time.monotonic() - began < APPEARS_S):
            if daemons:
                found = sample(daemons, shared_mb)
                peak = {name: max(value, peak.get(name, 0.0)) for name, value in found.items()}
            time.sleep(seconds)
    return peak


def measure(
    tell: Tell,
    *,
    folder: Annotated[str, "DIR of a mesh that runs beside"] = "",
    seconds: Annotated[float, "between two looks"] = 1.0,
) -> list[Figure]:
    if folder:
        peak = watch(Path(folder).absolute(), seconds)
    else:
        need_engine()
        with tempfile.TemporaryDirectory() as name:
            sets = [part for text in SETS for part in ("--set", text)]
            places = ["--nodes", str(NODES), "--dir", name]
            command = [sys.executable, "-m", "dflow_cli.app", "run", str(DEFAULT_SPEC), *sets, *places, "--json"]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
                peak = watch(Path(name), seconds)
    tell({name: round(value) for name, value in peak.items()})
    return [Figure(name, "MB", value) for name, value in peak.items()]
