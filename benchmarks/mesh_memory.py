"""How much memory does a local mesh take, and in which process? Watches one from beside until it ends.

    python benchmarks/mesh_memory.py DIR [--seconds 1]

DIR is that of `dflow run` or `dflow up`, started before or soon after. Prints one JSON object when the last daemon is
gone (or at Ctrl-C), in MB, the highest of each seen at once:

    daemon_own, engine_own  private memory of one process
    shared                  shared memory of the whole machine beyond what it had at first: shards, wherever mapped
    together                private memory of all daemons and engines, and that shared memory
    reference_files         of one engine: files that it maps, such as libraries and a reference's weights
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from pathlib import Path

import psutil

from dflow_cli.meshfiles import read_mesh

APPEARS_S = 60.0  # for a mesh in DIR


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
        "daemon_own": max((each.get("Pss_Anon", 0.0) for each in own), default=0.0),
        "engine_own": max((each.get("Pss_Anon", 0.0) for each in engines), default=0.0),
        "shared": shared,
        "together": sum(each.get("Pss_Anon", 0.0) for each in [*own, *engines]) + shared,
        "reference_files": max((each.get("Pss_File", 0.0) for each in engines), default=0.0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=1.0)
    chosen = parser.parse_args()
    folder, shared_mb = chosen.folder.absolute(), machine_shared_mb()
    began = time.monotonic()
    peak: dict[str, float] = {}
    with contextlib.suppress(KeyboardInterrupt):
        while (daemons := living(folder)) or (not peak and time.monotonic() - began < APPEARS_S):
            if daemons:
                found = sample(daemons, shared_mb)
                peak = {name: max(value, peak.get(name, 0.0)) for name, value in found.items()}
            time.sleep(chosen.seconds)
    print(json.dumps({name: round(value) for name, value in peak.items()}))


if __name__ == "__main__":
    main()
