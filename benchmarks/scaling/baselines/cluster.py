"""A Ray cluster on this machine, tuned as Ray's documentation says, and what every driver of one has.

Each node is a raylet with an object store of its own, in shared memory and so large that nothing is spilled (reads of
numpy arrays there are without a copy); the driver has a node for itself. Data goes from store to store by Ray's own
object manager. CPUs are what Ray schedules by and bind nobody: each node has enough for all of its actors at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol

import psutil
import ray
from ray.cluster_utils import Cluster

from benchmarks.scaling.baselines.work import Share
from benchmarks.scaling.measured import cpu_s
from benchmarks.scaling.profile import Profile

STORE_TIMES = 4  # a node's samples of a step: those of two stages, the step before, and one to spare
LEAST_STORE_BYTES = 256 << 20
CPUS = 16  # of a node
WORKER_NODE = "worker_node"  # the resource that all nodes have but the driver's


class Driver(Protocol):
    """One controller. `settings`: what a row tells of it."""

    settings: ClassVar[Mapping[str, Any]]

    def __init__(self, profile: Profile, shares: Sequence[Share]) -> None:
        """Starts the workers and waits for them."""

    def step(self, step: int) -> None:
        """One step, from 0."""

    def close(self) -> None: ...


@contextmanager
def cluster(profile: Profile, nodes: int, count: int) -> Iterator[dict[str, Any]]:
    """Nodes that each have the work of `count`; gives the settings."""
    store = max(LEAST_STORE_BYTES, STORE_TIMES * count * profile.samples * profile.sample_bytes)
    head = {"num_cpus": CPUS, "object_store_memory": store * nodes, "include_dashboard": False}
    started = Cluster(initialize_head=True, head_node_args=head)
    try:
        for index in range(nodes):
            started.add_node(
                num_cpus=CPUS, object_store_memory=store, resources={_resource(index): 1, WORKER_NODE: CPUS}
            )
        ray.init(address=started.address, log_to_driver=False, logging_level="ERROR")
        yield {
            "ray": ray.__version__,
            "store_bytes": store,
            "driver_store_bytes": store * nodes,
            "workers_a_node": 1,
        }
    finally:
        ray.shutdown()
        started.shutdown()


def workers(kind: type, shares: Sequence[Share]) -> list[Any]:
    """An actor of this class on each node, once all are up."""
    actors = [ray.remote(kind).options(resources={_resource(share.node): 1}).remote(share) for share in shares]
    ray.get([actor.is_up.remote() for actor in actors])
    return actors


def spilled_bytes() -> int:
    """What object stores wrote to a disk so far, as Ray tells it; 0 as it should be."""
    from ray._private.internal_api import memory_summary

    told = re.search(r"Spilled (\d+) MiB", memory_summary(stats_only=True))
    return int(told.group(1)) << 20 if told else 0


def processor_s() -> float:
    """Of this process and all that it started."""
    own = psutil.Process()
    return cpu_s([own.pid, *(child.pid for child in own.children(recursive=True))])


def _resource(node: int) -> str:
    return f"node{node}"
