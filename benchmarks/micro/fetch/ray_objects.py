"""Ray: an actor on one raylet gets objects that an actor on the other one has put.

Both raylets have object stores of their own, so bytes go from one to the other over Ray's object manager. Objects are
fresh ones each time, since what was fetched stays in the local store; to put them takes none of the time that is told.
Processor seconds are those of all processes of Ray. `python -m benchmarks.micro.fetch.ray_objects`.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import psutil
import ray
from ray.cluster_utils import Cluster

from benchmarks.micro.fetch.way import Sample, answer_lines
from benchmarks.scaling.measured import cpu_s

STORE_BYTES = 1 << 30
PUT_BYTES = 256 << 20  # put before it is fetched, at most
PUT_COUNT = 64


class Holder:
    def put(self, nbytes: int, count: int) -> list[Any]:
        return [ray.put(np.full(nbytes, 1, np.uint8)) for _ in range(count)]


class Fetcher:
    def fetch(self, refs: list[Any], at_once: int) -> tuple[float, list[float]]:
        """Seconds in all, and milliseconds of each."""
        times, began = [], time.perf_counter()
        for at in range(0, len(refs), at_once):
            asked = time.perf_counter()
            ray.get(refs[at : at + at_once])
            times += [1e3 * (time.perf_counter() - asked)] * len(refs[at : at + at_once])
        return time.perf_counter() - began, times


class Objects:
    def __init__(self) -> None:
        sizes = {"object_store_memory": STORE_BYTES, "num_cpus": 1}
        cluster = Cluster(initialize_head=True, head_node_args={**sizes, "resources": {"holder": 1}})
        cluster.add_node(**sizes, resources={"fetcher": 1})
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        self._holder = ray.remote(Holder).options(num_cpus=0, resources={"holder": 1}).remote()
        self._fetcher = ray.remote(Fetcher).options(num_cpus=0, resources={"fetcher": 1}).remote()
        self.fetch(1 << 20, 1, 0.0)

    def fetch(self, nbytes: int, at_once: int, seconds: float) -> Sample:
        count = max(at_once, min(PUT_COUNT, PUT_BYTES // nbytes) // at_once * at_once)
        fetched, took, cpu, times = 0, 0.0, 0.0, list[float]()
        while took < seconds or not times:
            refs = ray.get(self._holder.put.remote(nbytes, count))
            pids = [each.pid for each in psutil.Process().children(recursive=True)] + [os.getpid()]
            before = cpu_s(pids)
            batch_s, batch = ray.get(self._fetcher.fetch.remote(refs, at_once))
            cpu += cpu_s(pids) - before
            fetched, took, times = fetched + nbytes * count, took + batch_s, times + batch
        return Sample(fetched, took, times, cpu)


if __name__ == "__main__":
    answer_lines(Objects())
