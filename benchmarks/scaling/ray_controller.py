"""The profile's work under one Ray driver: an actor a node, each node a raylet of its own with its own object store.

    batches     the driver gathers each stage's batch and scatters it to the next one's workers, as verl's trainer does
                with a DataProto (verl/trainer/ppo/ray_trainer.py, DP_COMPUTE_PROTO)
    references  the driver hands references on, and bytes go from actor to actor: it sees control alone

A process of its own, since a driver keeps what it was told of a cluster: `python -m benchmarks.scaling.ray_controller
PROFILE NODES WORK STEPS batches|references`, which prints what it measured.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import psutil
import ray
from ray.cluster_utils import Cluster

from benchmarks.scaling.measured import Measured, cpu_s, settled
from benchmarks.scaling.profile import Profile, load

Batch = dict[str, np.ndarray]
"""Column -> [samples, ...], padded as a DataProto's are."""

IMAGE_BYTES = 1 << 20  # that are drawn; a sample repeats them
SYSTEMS = {"batches": "ray, batches", "references": "ray, references"}
STORE_TIMES = 3  # a node's samples of a step: two stages and the one before


class Worker:
    """One node's devices: sleeps as long as they take, and makes as many bytes. `shares`: how many nodes' work it does,
    one after the other."""

    def __init__(self, profile: Profile, seed: int, shares: int) -> None:
        self._profile, self._rng, self._shares = profile, np.random.default_rng(seed), shares
        self._device = profile.device

    def generate(self, prompts: np.ndarray) -> Batch:
        batches = [self._profile.batch(self._rng) for _ in range(self._shares)]
        time.sleep(sum(map(self._profile.generate_s, batches)))
        samples, size = self._profile.samples * self._shares, self._profile.sample_bytes
        drawn = self._rng.integers(0, 256, min(IMAGE_BYTES, samples * size), np.uint8)
        return {
            "sample": np.resize(drawn, (samples, size)),
            "lengths": np.concatenate([part for batch in batches for part in batch]),
            "logprobs": np.zeros((samples, self._profile.max_tokens), np.float32),
        }

    def score(self, batch: Batch) -> Batch:
        time.sleep(self._device["score_token_s"] * float(batch["lengths"].sum()))
        return {"ref": np.zeros_like(batch["logprobs"])}

    def train(self, *batches: Batch) -> float:
        tokens = float(batches[0]["lengths"].sum())
        time.sleep(self._device["train_token_s"] * tokens)
        return tokens

    def is_up(self) -> bool:
        return True


def advantages(batch: Mapping[str, np.ndarray], group: int) -> Batch:
    """Of made-up rewards; what a driver, or a worker, computes itself."""
    rewards = (batch["lengths"] % 2).astype(np.float32).reshape(-1, group)
    centred = (rewards - rewards.mean(1, keepdims=True)).reshape(-1, 1)
    return {"advantages": np.broadcast_to(centred, batch["logprobs"].shape).copy()}


def by_batches(workers: Sequence[Any], profile: Profile, prompts: np.ndarray) -> None:
    """One step; all data through the driver."""

    def spread(method: str, batch: Batch) -> list[Any]:
        columns = {name: np.split(values, len(workers)) for name, values in batch.items()}
        parts = [{name: split[at] for name, split in columns.items()} for at in range(len(workers))]
        done: list[Any] = ray.get(
            [getattr(worker, method).remote(part) for worker, part in zip(workers, parts, strict=True)]
        )
        return done

    chunks = np.split(prompts, len(workers))
    batch = gather(ray.get([worker.generate.remote(chunk) for worker, chunk in zip(workers, chunks, strict=True)]))
    batch |= gather(spread("score", batch))
    batch |= advantages(batch, profile.group)
    spread("train", batch)


def gather(parts: Sequence[Batch]) -> Batch:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def by_references(workers: Sequence[Any], profile: Profile, prompts: np.ndarray) -> None:
    """One step; the driver sees no data."""
    ends = []
    for worker, chunk in zip(workers, np.split(prompts, len(workers)), strict=True):
        batch = worker.generate.remote(chunk)
        ends.append(worker.train.remote(batch, worker.score.remote(batch)))
    ray.get(ends)


STEPS = {"batches": by_batches, "references": by_references}


def run(profile: Profile, nodes: int, work: int, steps: int, system: str) -> Measured:
    store = max(100 << 20, STORE_TIMES * work // nodes * profile.samples * profile.sample_bytes)
    head = {"num_cpus": 1, "object_store_memory": max(store, store * nodes), "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for index in range(nodes):
        cluster.add_node(num_cpus=1, object_store_memory=store, resources={f"node{index}": 1})
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        workers = [
            ray.remote(Worker).options(resources={f"node{index}": 1}).remote(profile, index, work // nodes)
            for index in range(nodes)
        ]
        ray.get([worker.is_up.remote() for worker in workers])
        prompts = np.zeros((work * profile.prompts, profile.prompt_tokens), np.int64)
        cpu_before, seconds = processor_s(), []
        for _ in range(steps):
            began = time.perf_counter()
            STEPS[system](workers, profile, prompts)
            seconds.append(time.perf_counter() - began)
        taken = (processor_s() - cpu_before) / steps
    finally:
        ray.shutdown()
        cluster.shutdown()
    return Measured(SYSTEMS[system], profile.name, nodes, steps, settled(seconds), profile.samples * work, taken)


def processor_s() -> float:
    """Of this process and all that it started."""
    own = psutil.Process()
    return cpu_s([own.pid, *(child.pid for child in own.children(recursive=True))])


def main(profile: str, nodes: str, work: str, steps: str, system: str) -> None:
    print(json.dumps(run(load(profile), int(nodes), int(work), int(steps), system).row()))


if __name__ == "__main__":
    main(*sys.argv[1:])
