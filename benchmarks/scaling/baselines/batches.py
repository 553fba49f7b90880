"""All data goes through the driver, stage by stage, as in verl's trainer (verl/trainer/ppo/ray_trainer.py): it gathers
what workers made, balances it by tokens, and puts each worker's part of the next stage into its store, in threads
(`parallel_put`). Beyond the profile's bytes nothing is padded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import ray

from benchmarks.scaling.baselines.cluster import workers
from benchmarks.scaling.baselines.work import Batch, Device, Share, advantages, balanced
from benchmarks.scaling.profile import Profile


class ByBatches:
    settings: ClassVar[Mapping[str, Any]] = {"balance_batch": True, "put_threads": os.cpu_count()}

    def __init__(self, profile: Profile, shares: Sequence[Share]) -> None:
        self._group = profile.group
        self._workers = workers(Device, shares)
        self._threads = ThreadPoolExecutor(os.cpu_count())

    def step(self, step: int) -> float:
        parts: list[Batch] = ray.get([worker.generate.remote(step) for worker in self._workers])
        lengths = np.concatenate([part["lengths"] for part in parts])
        order = np.concatenate(balanced(lengths, len(self._workers)))
        made = advantages(lengths, self._group)
        batch = gathered(parts, order)
        del parts
        batch |= joined(self._spread("score", batch))
        batch |= {name: values[order] for name, values in made.items()}
        return float(sum(self._spread("train", batch)))

    def close(self) -> None:
        self._threads.shutdown()

    def _spread(self, method: str, batch: Batch) -> list[Any]:
        """What the workers made of a share of the batch each, in its order."""
        columns = {name: np.split(values, len(self._workers)) for name, values in batch.items()}
        parts = [{name: split[at] for name, split in columns.items()} for at in range(len(self._workers))]
        put = self._threads.map(ray.put, parts)
        done: list[Any] = ray.get(
            [getattr(worker, method).remote(ref) for worker, ref in zip(self._workers, put, strict=True)]
        )
        return done


def joined(parts: Sequence[Batch]) -> Batch:
    """The parts one behind the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def gathered(parts: Sequence[Batch], order: Any) -> Batch:
    """The parts one behind the other, in this order of their rows; copied once."""
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    whole: Batch = {}
    for name, like in parts[0].items():
        whole[name] = np.empty((len(order), *like.shape[1:]), like.dtype)
        first = 0
        for part in parts:
            whole[name][place[first : first + len(part[name])]] = part[name]
            first += len(part[name])
    return whole
