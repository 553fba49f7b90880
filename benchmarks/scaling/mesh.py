"""The profile's work on a mesh of daemons."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.mesh_bytes import received
from benchmarks.scaling.measured import Measured, cpu_s, settled
from benchmarks.scaling.profile import Profile
from tests.support.mesh import Mesh
from tests.support.strike import await_stable, ended

LANES = ("bulk", "control")


def on_a_mesh(folder: Path, profile: Profile, nodes: int, work: int, steps: int) -> Measured:
    """On so many real daemons of this machine, the work of `work` nodes."""
    with Mesh(folder, nodes) as mesh:
        await_stable(mesh)
        processes = [pid for node in mesh.running() for pid in (node.pid, *node.children())]
        bytes_before, cpu_before = {lane: _received(mesh, lane) for lane in LANES}, cpu_s(processes)
        asked = mesh.running()[0]
        run = mesh.submit(asked, profile.pipeline(work, steps))
        summary = ended(mesh, run)
        if summary["state"] != "done":
            raise RuntimeError(f"the run ended as {summary['state']}\n{mesh.story()}")
        moved = {lane: (_received(mesh, lane) - bytes_before[lane]) / steps for lane in LANES}
        processor_s = (cpu_s(processes) - cpu_before) / steps
        rows: list[dict[str, Any]] = mesh.ask(asked, "metrics", run=run)["rows"]
    rows = sorted((row for row in rows if row["step"] > 0), key=lambda row: int(row["step"]))
    return Measured(
        system="dflowd",
        profile=profile.name,
        nodes=nodes,
        steps=steps,
        step_s=settled([row["step_s"] for row in rows]),
        samples=profile.samples * work,
        cpu_s=processor_s,
        bytes=moved,
        stage_s=_by_stage(rows),
        weights=summary["weights"],
    )


def _received(mesh: Mesh, lane: str) -> int:
    return sum(received(mesh, lane).values())


def _by_stage(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Slots' seconds a step, the first one left out."""
    seconds: dict[str, float] = defaultdict(float)
    settled_rows = rows[1:] or rows
    for row in settled_rows:
        for stage, took in row["seconds"].items():
            seconds[stage] += took / len(settled_rows)
    return dict(seconds)
