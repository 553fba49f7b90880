"""What of the mesh's lead over a single controller comes from what?

The same work done by systems that each have one thing more, in turns, medians over the rounds; rows as `scaling` tells
them. A figure a cause: samples a second with it, beside without it.

    no process through which all data goes      TransferQueue beside Ray, batches
    data stays on the node that made it         Ray, references by stage, beside TransferQueue
    no barrier between stages                   Ray, references, beside the same by stage
    daemons in place of a driver                the mesh that steals nothing, beside Ray, references. What it does more
                                                is in it: second copies, ids verified, gradients summed and applied,
                                                leaves of equal tokens
    stealing                                    the mesh beside itself without

Hosts are alike here; what stealing is worth where one is slow asks `stealing`.
"""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

from benchmarks import scaling
from benchmarks.figure import Figure, Skipped, Tell
from benchmarks.scaling.baselines import LABELS
from benchmarks.scaling.profile import NAMES

MESH, NO_STEALING = "dflowd", "dflowd, no stealing"
CAUSES = (  # with it, without it
    ("no process through which all data goes", LABELS["transferqueue"], LABELS["ray-batches"]),
    ("data stays on the node that made it", LABELS["ray-stages"], LABELS["transferqueue"]),
    ("no barrier between stages", LABELS["ray-references"], LABELS["ray-stages"]),
    ("daemons in place of a driver", NO_STEALING, LABELS["ray-references"]),
    ("stealing", MESH, NO_STEALING),
    ("all of it", MESH, LABELS["ray-batches"]),
)
QUICK = {"nodes": 2, "steps": 3}


def measure(
    tell: Tell,
    *,
    profiles: Annotated[tuple[str, ...], f"workloads: {', '.join(NAMES)}"] = ("siirl-table1",),
    nodes: Annotated[int, "of each system"] = 4,
    steps: Annotated[int, "of each run"] = 6,
    rounds: Annotated[int, "runs of each system"] = 1,
) -> list[Figure]:
    told = []
    for name in profiles:
        speeds = defaultdict[str, list[float]](list)
        for _ in range(rounds):
            for system in (*LABELS, NO_STEALING, MESH):
                row = _row(system, name, nodes, steps)
                tell(row)
                speeds[row["system"]].append(row["samples_s"])
        told += figures(name, {system: statistics.median(each) for system, each in speeds.items()})
    return told


def _row(system: str, profile: str, nodes: int, steps: int) -> dict[str, Any]:
    """As `scaling` tells it. Raises Skipped where a system cannot be measured: a split with a part left out is none."""
    rows: list[Mapping[str, Any]] = []
    measured: Any = MESH if system == NO_STEALING else system
    with stealing(system != NO_STEALING):
        scaling.measure(rows.append, profiles=(profile,), nodes=(nodes,), systems=(measured,), steps=steps)
    (row,) = rows
    if "skipped" in row:
        raise Skipped(f"{system}: {row['skipped']}")
    return {**row, "system": LABELS.get(system, system)}


@contextmanager
def stealing(is_on: bool) -> Iterator[None]:
    """Of daemons that are started meanwhile."""
    os.environ["DFLOWD_STEALS"] = "1" if is_on else "0"
    try:
        yield
    finally:
        del os.environ["DFLOWD_STEALS"]


def figures(profile: str, samples_s: Mapping[str, float]) -> list[Figure]:
    """`samples_s`: of each system, by its label."""
    return [
        Figure(f"{profile}: {cause}", "samples/s", samples_s[having], lacking, samples_s[lacking])
        for cause, having, lacking in CAUSES
    ]
