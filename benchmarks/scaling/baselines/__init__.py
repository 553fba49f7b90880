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

import subprocess
import sys
from importlib.util import find_spec

from benchmarks.scaling.measured import Measured, from_row
from benchmarks.scaling.profile import Profile

LABELS = {
    "ray-batches": "ray, batches",
    "ray-stages": "ray, references by stage",
    "ray-references": "ray, references",
    "transferqueue": "transferqueue",
}
NEEDS = {"transferqueue": ("ray", "transfer_queue")}
PATIENCE_S = 600.0


def on_a_cluster(system: str, profile: Profile, nodes: int, work: int, steps: int) -> Measured | str:
    """What was measured of `system`, one of `LABELS`, on so many nodes with the work of `work` nodes; or why nothing
    was."""
    if work % nodes:
        return f"the work of {work} nodes is not shared evenly by {nodes}"
    lacking = [module for module in NEEDS.get(system, ("ray",)) if find_spec(module) is None]
    if lacking:
        return f"needs {' and '.join(lacking)}: pip install 'dflowd[bench]'"
    words = [system, profile.name, str(nodes), str(work), str(steps)]
    command = [sys.executable, "-m", "benchmarks.scaling.baselines", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        return f"it took more than {PATIENCE_S:g} s"
    if done.returncode:
        told = (done.stderr.strip() or done.stdout.strip()).splitlines()
        return f"it failed: {told[-1] if told else f'exit code {done.returncode}'}"
    return from_row(done.stdout.splitlines()[-1])
