"""How much of the time trains what is in the final weights, where nodes die? Beside Ray that restarts.

Real daemons with emulated devices, killed by `kill -9` at moments drawn by the seed, and started again after a drawn
repair; beside them the same kills under one Ray driver that hands references on (each node is a raylet, killed with all
that it started). Ray's driver writes a checkpoint to a file and goes on from the last one: it keeps the workers that
live, and starts the dead one on its node as soon as that is repaired, as a job of fixed size has to. The mesh goes on
with who is left. Both do the same steps of a profile of `benchmarks/scaling`.

Goodput is the time of a run that nobody disturbs over the time of one that is struck, each of its own system. A profile
divides seconds by its scale, so an hour is `3600 / scale` s here. Four nodes that fail at 10 % an hour see one kill in
two and a half hours, so what is measured is what a kill costs, in runs that are struck more often than that (a row
tells at what rate), and goodput at a rate follows: an hour over an hour and the cost of its kills. Not scaled down are
detection of a death (some 2 s with `local` times, and for Ray with health checks set to match) and the start of a
process; both cost as much as `scale` times their seconds would, so all figures are on the low side. A row a run:

    kills     that struck; one drawn for after the end does not
    seconds   of the run; lost_s: more than the undisturbed run took
    rate      in percent of the nodes an hour
    work      that no kill may change: the final weights of the mesh; with Ray, the steps and trained tokens of the last
              checkpoint. steps_lost: that it began and did not end, or did again

Ray's checkpoint is written and synced after each step, and is as small as the mesh's model: by Young (1974) and Daly
(2006) the best seconds between two are sqrt(2 x seconds of one x seconds between failures), here less than a step. A
real one is dearer, and less often made; so this is its best case. `checkpoint_s` tells the median.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from benchmarks.figure import Figure, Goal, Tell
from benchmarks.goodput.account import Trial, goodput
from benchmarks.goodput.controller import under_a_controller
from benchmarks.goodput.kills import Kill, draw
from benchmarks.goodput.mesh import on_a_mesh
from benchmarks.scaling.profile import Profile, load

System: TypeAlias = Literal["dflowd", "ray-references"]
GOALS = {10: 0.95}  # goodput at so many percent of the nodes an hour
QUICK = {"steps": 8, "kills": 1, "rounds": 1, "repair_minutes": 5.0}


def measure(
    tell: Tell,
    *,
    profile: Annotated[str, "workload, of benchmarks/scaling/profiles"] = "grpo-7b-math",
    nodes: Annotated[int, "of each system"] = 4,
    steps: Annotated[int, "of each run"] = 60,
    kills: Annotated[int, "in each struck run"] = 4,
    rounds: Annotated[int, "struck runs of each system"] = 2,
    seed: Annotated[int, "of the kills"] = 0,
    rates: Annotated[tuple[int, ...], "percent of the nodes that fail in an hour"] = (0, 1, 5, 10, 20),
    repair_minutes: Annotated[float, "mean, unscaled; from half to one and a half times that are drawn"] = 10.0,
    systems: Annotated[tuple[System, ...], "which are measured"] = ("dflowd", "ray-references"),
) -> list[Figure]:
    of, costs = load(profile), dict[str, float]()
    for system in systems:
        calm = _run(system, of, nodes, steps, ())
        tell({**_row(calm, of), "load": _load()})
        lost = []
        for number in range(rounds):
            struck = draw(f"{seed}/{number}", kills, nodes, calm.seconds, 60 * repair_minutes / of.scale)
            rate = kills / nodes / (calm.seconds / of.hour_s)
            trial = _run(system, of, nodes, steps, struck)
            lost.append((trial.seconds - calm.seconds) / max(1, trial.kills))
            more = {"lost_s": round(trial.seconds - calm.seconds, 2), "rate": f"{rate:.0%}"}
            tell({**_row(trial, of), **more, "same_work": trial.work == calm.work, "load": _load()})
        costs[system] = statistics.mean(lost)
    return figures(costs, of, nodes, rates)


def _run(system: str, profile: Profile, nodes: int, steps: int, kills: tuple[Kill, ...]) -> Trial:
    run = on_a_mesh if system == "dflowd" else under_a_controller
    with tempfile.TemporaryDirectory() as folder:
        return run(Path(folder), profile, nodes, steps, kills)


def figures(costs: dict[str, float], profile: Profile, nodes: int, rates: tuple[int, ...]) -> list[Figure]:
    """What a kill costs, and goodput at each rate."""
    told = _figures("a kill costs", "s", costs)
    for rate in rates:
        shares = {system: goodput(rate / 100, nodes, cost, profile.hour_s) for system, cost in costs.items()}
        told += _figures(f"goodput at {rate} % of the nodes an hour", "of the time", shares, GOALS.get(rate))
    return told


def _figures(what: str, unit: str, found: dict[str, float], least: float | None = None) -> list[Figure]:
    """Ours beside the other's. A goal is of the figure itself, so that one stands apart."""
    if "dflowd" not in found:
        return []
    ours, theirs = found["dflowd"], found.get("ray-references")
    beside = Figure(what, unit, ours, None if theirs is None else "ray, references, restarted", theirs)
    return [beside] if least is None else [beside, Figure(f"{what}, itself", unit, ours, goal=Goal(least, True))]


def _row(trial: Trial, profile: Profile) -> dict[str, object]:
    row = {"system": trial.system, "profile": profile.name, "kills": trial.kills, "seconds": round(trial.seconds, 2)}
    return row | dict(trial.settings) | {"work": trial.work}


def _load() -> float:
    return round(os.getloadavg()[0], 2)
