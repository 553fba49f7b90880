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

`--slower TIMES`: each node has a host of its own, with `--cores` and a link of `--gbit-s`, and hosts, links and devices
are slower than real ones by that factor (benchmarks/scaling/hosts.py): so two cores carry many hosts, and what passes
through one process or one link takes as long as it would. Seconds are then the hosts' own. `--smaller`: prompts and
seconds are divided once more, where memory would not carry them.
`--strong`: the work of the largest mesh for all; else each node brings its own. Sizes that this machine does not carry
are passed over, with the reason. `--report FOLDER` writes scaling.csv, .json, .png and .html there. `--dir DIR` or
`--to KEY@HOST:PORT` measures a mesh that lives, on all its hosts; nothing is started or ended but the run. Not in it:
the exchange of gradients, which a single controller leaves to a process group; models have 4,096 parameters.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from benchmarks.figure import Figure, Goal, Skipped, Tell
from benchmarks.scaling.baselines import on_a_cluster
from benchmarks.scaling.hosts import Host, SlowHosts
from benchmarks.scaling.limits import too_many
from benchmarks.scaling.measured import Measured
from benchmarks.scaling.mesh import living, measure_on, started, started_on
from benchmarks.scaling.profile import NAMES, load
from benchmarks.scaling.report import write
from benchmarks.scaling.setting import Setting
from dflow_cli.folder import unsaid_folder

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
    slower: Annotated[float, "each node is a host of its own, so many times slower than a real one; 0: none is"] = 0.0,
    cores: Annotated[float, "of such a host"] = 2.0,
    gbit_s: Annotated[float, "of such a host's link, each way"] = 25.0,
    smaller: Annotated[float, "by what prompts and seconds of a profile are divided once more"] = 1.0,
    report: Annotated[str, "folder to write the report to"] = "",
    dir: Annotated[str, "folder of a mesh that lives, to be measured as it is"] = "",
    to: Annotated[str, "KEY@HOST:PORT of a daemon of such a mesh"] = "",
) -> list[Figure]:
    host = Host(slower, cores, gbit_s) if slower else None
    if host and host.lacks():
        raise Skipped(f"hosts of their own: {host.lacks()}")
    settings = [
        Setting(system, name, count, max(nodes) if strong else count, steps, smaller, host)
        for name, count, system in itertools.product(profiles, nodes, systems)
    ]
    found: list[Measured] = []
    for each in _living(profiles, dir, to, steps) if dir or to else _in_turn(settings):
        if isinstance(each, Measured):
            found.append(each)
            tell({**each.row(), "load": round(os.getloadavg()[0], 2)})
        else:
            tell(each)
    if report:
        write(Path(report), found, "strong" if strong else "weak", smaller)
    return figures(found, strong)


def _living(profiles: Iterable[str], folder: str, to: str, steps: int) -> Iterator[Measured]:
    """Each workload on the mesh that is there, the work of a node for each of its hosts."""
    with living(Path(folder) if folder else unsaid_folder(), to) as members:
        for name in profiles:
            yield measure_on(members, load(name), len(members), steps)


def _in_turn(settings: Iterable[Setting]) -> Iterator[Measured | dict[str, Any]]:
    """What was measured, and what was passed over and why."""
    before: dict[tuple[str, str], Measured] = {}
    for setting in settings:
        system, profile, nodes = setting.system, setting.profile, setting.nodes
        measured = too_many(nodes, before.get((system, profile))) or _one(setting)
        if isinstance(measured, Measured):
            before[system, profile] = measured
            yield measured
        else:
            yield {"system": system, "profile": profile, "nodes": nodes, "skipped": measured}


def _one(setting: Setting) -> Measured | str:
    """What was measured, or why nothing was."""
    if setting.system != "dflowd":
        return on_a_cluster(setting)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if setting.host is None:
            members = stack.enter_context(started(folder, setting.nodes))
            return measure_on(members, setting.sized(), setting.work, setting.steps)
        slow = stack.enter_context(SlowHosts([f"n{index}" for index in range(setting.nodes)], setting.host))
        members = stack.enter_context(started_on(slow, folder))
        slow.hold_back()
        measured = measure_on(members, setting.sized(), setting.work, setting.steps)
        return measured.on(slow.host, slow.throttled_s())


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
