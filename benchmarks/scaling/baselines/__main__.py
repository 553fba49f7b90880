"""`python -m benchmarks.scaling.baselines SETTING` prints what it measured, as a row. `SETTING`: as JSON."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack

from benchmarks.scaling.baselines import LABELS
from benchmarks.scaling.baselines.batches import ByBatches
from benchmarks.scaling.baselines.cluster import Driver, RayNodes, processor_s, spilled_bytes
from benchmarks.scaling.baselines.references import ByReferences, ByStages
from benchmarks.scaling.baselines.work import Share
from benchmarks.scaling.hosts import SlowHosts
from benchmarks.scaling.measured import Measured, settled
from benchmarks.scaling.setting import Setting

DRIVER = "driver"  # its host


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


def run(setting: Setting, slow: SlowHosts | None) -> Measured:
    """`slow`: hosts for all, of which this process is on the driver's."""
    profile, count = setting.sized(), setting.work // setting.nodes
    shares = [Share(profile, setting.work, setting.steps, node, count) for node in range(setting.nodes)]
    with RayNodes(profile, setting.nodes, count, slow=slow) as cluster:
        driver = driver_of(setting.system)(profile, shares)
        if slow:
            slow.hold_back()
        cpu_before, seconds = processor_s(), []
        for step in range(setting.steps):
            began = time.perf_counter()
            driver.step(step)
            seconds.append(time.perf_counter() - began)
        taken = (processor_s() - cpu_before) / setting.steps
        told = cluster.settings | dict(driver.settings) | {"spilled_bytes": spilled_bytes()}
        measured = Measured(
            system=LABELS[setting.system],
            profile=profile.name,
            nodes=setting.nodes,
            steps=setting.steps,
            step_s=settled(seconds),
            samples=profile.samples * setting.work,
            cpu_s=taken,
            settings=told,
        )
        driver.close()
        return measured.on(slow.host, slow.throttled_s()) if slow else measured


def main(setting: Setting) -> None:
    with ExitStack() as stack:
        slow = None
        if setting.host:
            names = [*(f"n{index}" for index in range(setting.nodes)), DRIVER]
            slow = stack.enter_context(SlowHosts(names, setting.host))
            slow.enter(DRIVER)
        print(json.dumps(run(setting, slow).row()))


if __name__ == "__main__":
    main(Setting.from_dict(json.loads(sys.argv[1])))
