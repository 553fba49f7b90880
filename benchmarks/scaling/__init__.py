"""How does a step's time grow with the hosts, and what would a single controller make of the same work?

Real daemons on this machine with emulated devices: they sleep as long as the profile says and make as many bytes;
claims, seals, copies and sums are real. Beside them the same work under one controller, tuned as its documentation has
it: Ray, with all data through the driver (`ray, batches`) or none (`ray, references`), and TransferQueue; each of their
nodes is a raylet with its own store, and what they leave out is told in benchmarks/scaling/baselines.
A profile's prompts and seconds are divided by one factor, so bytes a second are as published. A row a system, profile
and number of nodes:

    step_s     median seconds of a step, the first left out
    ideal_s    the same, if only the devices took time: what others wait for the longest completions is in it
    samples_s  samples a second, all nodes together
    bytes      that all nodes received in a step, by lane, where the system tells
    cpu_s      processor seconds of a step, all processes together, the making of the payload among them; daemon_cpu_s
               those of daemons alone
    stage_s    seconds of slots by stage; waiting: the share of the slots' time in which they computed nothing
    waits_s    seconds in which slots waited, by cause (benchmarks/scaling/waits.py tells which there are)
    settings   of another system

`--strong`: the work of the largest mesh for all; else each node brings its own. Sizes that this machine does not carry
are passed over, with the reason. `--report FOLDER` writes scaling.csv, .json, .png and .html there. `--dir DIR` or
`--to KEY@HOST:PORT` measures a mesh that lives, on all its hosts; nothing is started or ended but the run. Not in it:
the exchange of gradients, which a single controller leaves to a process group; models have 4,096 parameters.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from benchmarks.figure import Figure, Goal, Tell
from benchmarks.scaling.baselines import on_a_cluster
from benchmarks.scaling.limits import too_many
from benchmarks.scaling.measured import Measured
from benchmarks.scaling.mesh import living, measure_on, started
from benchmarks.scaling.profile import NAMES, Profile, load
from benchmarks.scaling.report import write
from dflow_cli.folder import DEFAULT_FOLDER

System: TypeAlias = Literal["dflowd", "ray-batches", "transferqueue", "ray-references", "ray-stages"]
SYSTEMS: tuple[System, ...] = ("dflowd", "ray-batches", "transferqueue", "ray-references")
WEAK = 0.95  # of one node's speed, each: what the mesh is to keep
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
    dir: Annotated[str, "folder of a mesh that lives, to be measured as it is"] = "",
    to: Annotated[str, "KEY@HOST:PORT of a daemon of such a mesh"] = "",
) -> list[Figure]:
    found: list[Measured] = []
    for each in _living(profiles, dir, to, steps) if dir or to else _by_size(profiles, nodes, systems, strong, steps):
        if isinstance(each, Measured):
            found.append(each)
            tell({**each.row(), "load": round(os.getloadavg()[0], 2)})
        else:
            tell(each)
    if report:
        write(Path(report), found, "strong" if strong else "weak")
    return figures(found, strong)


def _living(profiles: Iterable[str], folder: str, to: str, steps: int) -> Iterator[Measured]:
    """Each workload on the mesh that is there, the work of a node for each of its hosts."""
    with living(Path(folder or DEFAULT_FOLDER), to) as members:
        for name in profiles:
            yield measure_on(members, load(name), len(members), steps)


def _by_size(
    profiles: Iterable[str], nodes: Sequence[int], systems: Sequence[str], strong: bool, steps: int
) -> Iterator[Measured | dict[str, Any]]:
    """What was measured, and what was passed over and why."""
    for name in profiles:
        before: dict[str, Measured] = {}
        for count in nodes:
            for system in systems:
                work = max(nodes) if strong else count
                measured = too_many(count, before.get(system)) or _one(load(name), system, count, work, steps)
                if isinstance(measured, Measured):
                    before[system] = measured
                    yield measured
                else:
                    yield {"system": system, "profile": name, "nodes": count, "skipped": measured}


def _one(profile: Profile, system: str, nodes: int, work: int, steps: int) -> Measured | str:
    """What was measured, or why nothing was."""
    if system != "dflowd":
        return on_a_cluster(system, profile, nodes, work, steps)
    with tempfile.TemporaryDirectory() as folder, started(Path(folder), nodes) as members:
        return measure_on(members, profile, work, steps)


def figures(found: list[Measured], strong: bool) -> list[Figure]:
    """Efficiency by size, and ours beside the others on the largest mesh that both reached."""
    told = []
    ours = [each for each in found if each.system == "dflowd"]
    for each in ours:
        first = next(other for other in ours if other.profile == each.profile)
        ideal = first.samples_s * each.nodes / first.nodes
        what = f"{each.profile}, {'strong' if strong else 'weak'} scaling, {each.nodes} nodes"
        kept = None if strong or each is first else Goal(WEAK, is_least=True)
        told.append(Figure(what, "samples/s", each.samples_s, f"{first.nodes} scaled up", ideal, kept))
        if each.ideal_s == each.ideal_s:
            what = f"{each.profile}, {each.nodes} nodes, a step"
            told.append(Figure(what, "s", each.step_s, "its devices alone", each.ideal_s))
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
