"""Data goes through TransferQueue: a worker puts each sample the moment it is sampled, and gets those that the driver
deals to it; the driver sees metadata, as in verl (verl/trainer/ppo/v1: agent_loop_tq.py, trainer_base.py).

SimpleStorage, its backend without other services: two storage units a node, as its documentation recommends, on the
nodes of the workers alone. Which unit keeps a sample follows from its number, not from who made it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import ray
import torch
import transfer_queue as tq
from omegaconf import OmegaConf
from tensordict import TensorDict

from benchmarks.scaling.baselines.cluster import WORKER_NODE, workers
from benchmarks.scaling.baselines.work import Device, Share, advantages, balanced
from benchmarks.scaling.profile import Profile

PARTITION = "train"
UNITS_A_NODE = 2
TRAINED = ["sample", "lengths", "ref", "advantages"]


class QueueDevice(Device):
    """A node's devices, and a client in an event loop that lives as long as they do."""

    def __init__(self, share: Share) -> None:
        super().__init__(share)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        tq.init()

    def sample(self, step: int) -> tuple[list[str], Any]:
        """Keys of what it put, and their lengths."""
        nodes = self.lengths(step)
        keys: list[str] = []
        for partitions in nodes:
            drawn = self._wait(self._sample_node(partitions, f"{step}-{self._share.node}-{len(keys)}"))
            keys += drawn
        return keys, np.concatenate([part for partitions in nodes for part in partitions])

    async def _sample_node(self, partitions: Sequence[Any], name: str) -> list[str]:
        """Samples end one after the other, the longest one of a partition with it."""
        lengths = np.concatenate(partitions)
        ends = np.concatenate(
            [seconds * part / part.max() for part, seconds in zip(partitions, self.sampling_s(partitions), strict=True)]
        )
        keys = [f"{name}-{at}" for at in range(len(lengths))]
        rows = torch.from_numpy(self.samples(len(lengths)))

        async def put(at: int) -> None:
            await asyncio.sleep(float(ends[at]))
            fields = {"sample": rows[at : at + 1], "lengths": torch.tensor([int(lengths[at])])}
            await tq.async_kv_batch_put(
                [keys[at]], PARTITION, TensorDict(fields, batch_size=1), [{"status": "success"}]
            )

        await asyncio.gather(*map(put, range(len(keys))))
        return keys

    def score_keys(self, keys: list[str]) -> None:
        made = self.score(self._wait(tq.async_kv_batch_get(keys, PARTITION, ["sample", "lengths"])))
        fields = {name: torch.from_numpy(values) for name, values in made.items()}
        self._wait(tq.async_kv_batch_put(keys, PARTITION, TensorDict(fields, batch_size=len(keys))))

    def train_keys(self, keys: list[str]) -> float:
        return self.train(self._wait(tq.async_kv_batch_get(keys, PARTITION, TRAINED)))

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class ByQueue:
    settings: ClassVar[Mapping[str, Any]] = {
        "balance_batch": True,
        "storage_backend": "SimpleStorage",
        "storage_units_a_node": UNITS_A_NODE,
        "put": "each sample as it ends",
    }

    def __init__(self, profile: Profile, shares: Sequence[Share]) -> None:
        self._group = profile.group
        storage = {"num_data_storage_units": UNITS_A_NODE * len(shares), "required_node_resource": WORKER_NODE}
        tq.init(OmegaConf.create({"backend": {"storage_backend": "SimpleStorage", "SimpleStorage": storage}}))
        self._workers = workers(QueueDevice, shares)

    def step(self, step: int) -> float:
        sampled = ray.get([worker.sample.remote(step) for worker in self._workers])
        keys = [key for made, _ in sampled for key in made]
        lengths = np.concatenate([drawn for _, drawn in sampled])
        dealt = [[keys[at] for at in share] for share in balanced(lengths, len(self._workers))]
        self._all("score_keys", dealt)
        gains = torch.from_numpy(advantages(lengths, self._group)["advantages"])
        tq.kv_batch_put(keys, PARTITION, TensorDict({"advantages": gains}, batch_size=len(keys)))
        trained = self._all("train_keys", dealt)
        tq.kv_clear(keys, PARTITION)
        return float(sum(trained))

    def close(self) -> None:
        tq.close()

    def _all(self, method: str, dealt: Sequence[list[str]]) -> list[Any]:
        calls = zip(self._workers, dealt, strict=True)
        done: list[Any] = ray.get([getattr(worker, method).remote(keys) for worker, keys in calls])
        return done
