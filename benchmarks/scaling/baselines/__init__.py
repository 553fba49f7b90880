"""The profile's work as other systems do it: one Ray driver, and a worker on each node, which is a raylet of its own.

    ray-batches     the driver gathers each stage's batch and scatters it to the next one's workers, as verl's trainer
                    does with a DataProto
    transferqueue   the driver hands metadata on; workers put and get samples in storage units (TransferQueue), as
                    verl's trainer does since 0.9
    ray-references  the driver hands references on; bytes stay on the node that made them
    ray-stages      the same, but a stage begins when all workers ended the one before it

All of them sleep for as long as the mesh's engines do, for completions of the very same lengths, and hold as many bytes
a sample. None of them copies what was made to a second node, verifies what arrives, or goes on without its driver or
after a worker's death; none sums a gradient or applies an update. Each runs in a process of its own, since a driver
keeps what it was told of a cluster.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from importlib.util import find_spec

from benchmarks.scaling.measured import Measured, from_row
from benchmarks.scaling.setting import Setting

LABELS = {
    "ray-batches": "ray, batches",
    "ray-stages": "ray, references by stage",
    "ray-references": "ray, references",
    "transferqueue": "transferqueue",
}
NEEDS = {"transferqueue": ("ray", "transfer_queue")}
PATIENCE_S = 600.0
STARTS = {"RAY_raylet_start_wait_time_s": "300"}  # a loaded machine has its way
STEP_TIMES = 20  # times its devices' seconds, after which a step is given up, where that is longer


def on_a_cluster(setting: Setting) -> Measured | str:
    """What was measured, or why nothing was."""
    if setting.work % setting.nodes:
        return f"the work of {setting.work} nodes is not shared evenly by {setting.nodes}"
    lacking = [module for module in NEEDS.get(setting.system, ("ray",)) if find_spec(module) is None]
    if lacking:
        return f"needs {' and '.join(lacking)}: pip install 'dflowd[bench]'"
    command = [sys.executable, "-m", "benchmarks.scaling.baselines", json.dumps(asdict(setting))]
    devices_s = setting.steps * setting.sized().seconds * setting.work / setting.nodes
    patience_s = max(PATIENCE_S, STEP_TIMES * devices_s)
    try:
        done = subprocess.run(
            command, env=os.environ | STARTS, capture_output=True, text=True, timeout=patience_s, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it took more than {patience_s:g} s"
    if done.returncode:
        told = (done.stderr.strip() or done.stdout.strip()).splitlines()
        return f"it failed: {told[-1] if told else f'exit code {done.returncode}'}"
    return from_row(done.stdout.splitlines()[-1])
