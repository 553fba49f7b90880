"""A Ray cluster on this machine, tuned as Ray's documentation says, and what every driver of one has.

Each node is a raylet with an object store of its own, in shared memory and so large that nothing is spilled (reads of
numpy arrays there are without a copy); the driver has a node for itself. Data goes from store to store by Ray's own
object manager. CPUs are what Ray schedules by and bind nobody: each node has enough for all of its actors at once.
Workers run at the priority of everybody else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self

import psutil
import ray
from ray.cluster_utils import Cluster

from benchmarks.scaling.baselines.work import Share
from benchmarks.scaling.hosts import SlowHosts
from benchmarks.scaling.measured import cpu_s
from benchmarks.scaling.profile import Profile

STORE_TIMES = 4  # a node's samples of a step: those of two stages, the step before, and one to spare
LEAST_STORE_BYTES = 256 << 20
CPUS = 16  # of a node
TUNED = {"worker_niceness": 0}  # by default 15: with company on the machine they would starve, and daemons would not
PATIENCE = {  # Ray's own defaults, in milliseconds; as much longer on slow hosts as these are slower
    "health_check_period_ms": 3_000,
    "health_check_timeout_ms": 10_000,
    "grpc_keepalive_time_ms": 10_000,
    "grpc_keepalive_timeout_ms": 20_000,
    "object_manager_pull_timeout_ms": 10_000,
}
WORKER_NODE = "worker_node"  # the resource that all nodes have but the driver's


class Driver(Protocol):
    """One controller. `settings`: what a row tells of it."""

    settings: ClassVar[Mapping[str, Any]]

    def __init__(self, profile: Profile, shares: Sequence[Share]) -> None:
        """Starts the workers and waits for them."""

    def step(self, step: int) -> float:
        """One step, from 0. The tokens it trained."""

    def close(self) -> None: ...


class RayNodes:
    """The nodes of a cluster, each with the work of `count` nodes. A context: at its end all are killed."""

    def __init__(
        self,
        profile: Profile,
        nodes: int,
        count: int,
        config: Mapping[str, Any] | None = None,
        slow: SlowHosts | None = None,
    ) -> None:
        """`config`: of Ray itself, where neither its defaults nor `TUNED` are what is wanted. `slow`: a host for each
        node; this process is on that of the driver."""
        self._slow = slow
        patience = {name: round(ms * slow.host.slower) for name, ms in PATIENCE.items()} if slow else {}
        self._config = TUNED | patience | dict(config or {})
        self._store = max(LEAST_STORE_BYTES, STORE_TIMES * count * profile.samples * profile.sample_bytes)
        self._count = nodes
        self._nodes: dict[int, Any] = {}

    def __enter__(self) -> Self:
        store = self._store * self._count
        head: dict[str, Any] = {"num_cpus": CPUS, "object_store_memory": store, "include_dashboard": False}
        head |= {"_system_config": dict(self._config)}  # Ray adds to it
        here = {"node_ip_address": self._slow.address} if self._slow else {}
        self._cluster = Cluster(initialize_head=True, head_node_args=head | here)
        for index in range(self._count):
            self.start(index)
        there = {"_node_ip_address": self._slow.address} if self._slow else {}
        ray.init(address=self._cluster.address, log_to_driver=False, logging_level="ERROR", **there)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        ray.shutdown()
        self._cluster.shutdown()

    @property
    def settings(self) -> dict[str, Any]:
        """What a row tells of it."""
        return {
            "ray": ray.__version__,
            "store_bytes": self._store,
            "driver_store_bytes": self._store * self._count,
            "workers_a_node": 1,
            **self._config,
        }

    def start(self, index: int) -> None:
        node = {
            "num_cpus": CPUS,
            "object_store_memory": self._store,
            "resources": {_resource(index): 1, WORKER_NODE: CPUS},
        }
        if self._slow is None:
            self._nodes[index] = self._cluster.add_node(**node)
            return
        with self._slow.on(f"n{index}") as address:
            self._nodes[index] = self._cluster.add_node(**node, node_ip_address=address)

    def kill(self, index: int) -> None:
        """kill -9 of its raylet and of all that it started."""
        self._cluster.remove_node(self._nodes.pop(index), allow_graceful=False)


def worker(kind: type, share: Share) -> Any:
    """An actor of this class on the share's node, once it is there."""
    return ray.remote(kind).options(resources={_resource(share.node): 1}).remote(share)


def workers(kind: type, shares: Sequence[Share]) -> list[Any]:
    """An actor of this class on each node, once all are up."""
    actors = [worker(kind, share) for share in shares]
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
