"""`python -m benchmarks.scaling.baselines SYSTEM PROFILE NODES WORK STEPS` prints what it measured, as a row."""

from __future__ import annotations

import json
import sys
import time

from benchmarks.scaling.baselines import LABELS
from benchmarks.scaling.baselines.batches import ByBatches
from benchmarks.scaling.baselines.cluster import Driver, RayNodes, processor_s, spilled_bytes
from benchmarks.scaling.baselines.references import ByReferences, ByStages
from benchmarks.scaling.baselines.work import Share
from benchmarks.scaling.measured import Measured, settled
from benchmarks.scaling.profile import Profile, load


def driver_of(system: str) -> type[Driver]:
    """TransferQueue, with torch behind it, is loaded where it is measured only."""
    if system == "transferqueue":
        from benchmarks.scaling.baselines.transfer_queue import ByQueue

        return ByQueue
    drivers: dict[str, type[Driver]] = {
        "ray-batches": ByBatches,
        "ray-references": ByReferences,
        "ray-stages": ByStages,
    }
    return drivers[system]


def run(system: str, profile: Profile, nodes: int, work: int, steps: int) -> Measured:
    shares = [Share(profile.name, work, steps, node, work // nodes) for node in range(nodes)]
    with RayNodes(profile, nodes, work // nodes) as cluster:
        driver = driver_of(system)(profile, shares)
        cpu_before, seconds = processor_s(), []
        for step in range(steps):
            began = time.perf_counter()
            driver.step(step)
            seconds.append(time.perf_counter() - began)
        taken = (processor_s() - cpu_before) / steps
        told = cluster.settings | dict(driver.settings) | {"spilled_bytes": spilled_bytes()}
        driver.close()
    return Measured(
        system=LABELS[system],
        profile=profile.name,
        nodes=nodes,
        steps=steps,
        step_s=settled(seconds),
        samples=profile.samples * work,
        cpu_s=taken,
        settings=told,
    )


if __name__ == "__main__":
    system, name, *numbers = sys.argv[1:]
    nodes, work, steps = map(int, numbers)
    print(json.dumps(run(system, load(name), nodes, work, steps).row()))
