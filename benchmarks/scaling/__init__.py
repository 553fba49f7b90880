"""How does a step's time grow with the hosts, and what would a single controller make of the same work?

Real daemons on this machine with emulated devices: they sleep as long as the profile says and make as many bytes;
claims, seals, copies and sums are real. Beside them the same work under one controller, tuned as its documentation has
it: Ray, with all data through the driver (`ray, batches`) or none (`ray, references`), and TransferQueue; each of their
nodes is a raylet with its own store, and what they leave out is told in benchmarks/scaling/baselines.
A profile's prompts and seconds are divided by one factor, so bytes a second are as published. A row a system, profile
and number of nodes:

    step_s     median seconds of a step, the first left out
    samples_s  samples a second, all nodes together
    bytes      that all nodes received in a step, by lane, where the system tells
    cpu_s      processor seconds of a step, all processes together, the making of the payload among them
    stage_s    seconds of slots by stage; waiting: the share of the slots' time in which they computed nothing
    settings   of another system

`--strong`: the work of the largest mesh for all; else each node brings its own. `--report FOLDER` writes scaling.csv,
scaling.json, scaling.png and scaling.html there. Not in it: the exchange of gradients, which a single controller leaves
to a process group; models have 4,096 parameters.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from benchmarks.figure import Figure, Goal, Tell
from benchmarks.scaling.baselines import on_a_cluster
from benchmarks.scaling.measured import Measured
from benchmarks.scaling.mesh import on_a_mesh
from benchmarks.scaling.profile import NAMES, Profile, load
from benchmarks.scaling.report import write

System: TypeAlias = Literal["dflowd", "ray-batches", "transferqueue", "ray-references", "ray-stages"]
SYSTEMS: tuple[System, ...] = ("dflowd", "ray-batches", "transferqueue", "ray-references")
GOALS = {"siirl-table1": 2.09, "grpo-7b-math": 2.6, "vlm-7b": 6.9}  # times the single controller, as DistFlow reached
QUICK = {"profiles": ("siirl-table1",), "nodes": (1, 2), "steps": 3, "systems": ("dflowd",)}


def measure(
    tell: Tell,
    *,
    profiles: Annotated[tuple[str, ...], f"workloads: {', '.join(NAMES)}"] = ("siirl-table1",),
    nodes: Annotated[tuple[int, ...], "sizes of the mesh"] = (1, 2, 4),
    systems: Annotated[tuple[System, ...], "which are measured"] = SYSTEMS,
    strong: Annotated[bool, "the same work for all sizes"] = False,
    steps: Annotated[int, "of each run"] = 6,
    report: Annotated[str, "folder to write the report to"] = "",
) -> list[Figure]:
    found: list[Measured] = []
    for name in profiles:
        profile = load(name)
        for count in nodes:
            for system in systems:
                work = max(nodes) if strong else count
                measured = _one(profile, system, count, work, steps)
                if isinstance(measured, str):
                    tell({"system": system, "profile": name, "nodes": count, "skipped": measured})
                    continue
                found.append(measured)
                tell({**measured.row(), "load": round(os.getloadavg()[0], 2)})
    if report:
        write(Path(report), found, "strong" if strong else "weak")
    return figures(found, strong)


def _one(profile: Profile, system: str, nodes: int, work: int, steps: int) -> Measured | str:
    """What was measured, or why nothing was."""
    if system != "dflowd":
        return on_a_cluster(system, profile, nodes, work, steps)
    with tempfile.TemporaryDirectory() as folder:
        return on_a_mesh(Path(folder), profile, nodes, work, steps)


def figures(found: list[Measured], strong: bool) -> list[Figure]:
    """Efficiency by size, and ours beside the others on the largest mesh that both reached."""
    told = []
    ours = [each for each in found if each.system == "dflowd"]
    for each in ours:
        first = next(other for other in ours if other.profile == each.profile)
        ideal = first.samples_s * each.nodes / first.nodes
        what = f"{each.profile}, {'strong' if strong else 'weak'} scaling, {each.nodes} nodes"
        told.append(Figure(what, "samples/s", each.samples_s, f"{first.nodes} scaled up", ideal))
    for other in found:
        same = [each for each in ours if (each.profile, each.nodes) == (other.profile, other.nodes)]
        if other.system == "dflowd" or not same or other.nodes != _largest(found, other):
            continue
        goal = GOALS.get(other.profile, 1.0) if other.system == "ray, batches" else 1.0
        what = f"{other.profile}, {other.nodes} nodes, beside {other.system}"
        told.append(
            Figure(what, "samples/s", same[0].samples_s, other.system, other.samples_s, Goal(goal, is_least=True))
        )
    return told


def _largest(found: list[Measured], like: Measured) -> int:
    return max(each.nodes for each in found if (each.system, each.profile) == (like.system, like.profile))
