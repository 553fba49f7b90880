"""Data stays on the node that made it: the driver hands references on, and a worker reads what lies in its own node's
store. Workers keep what they sampled, so no batch is balanced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import ray

from benchmarks.scaling.baselines.cluster import worker, workers
from benchmarks.scaling.baselines.work import Device, Share
from benchmarks.scaling.profile import Profile


class ByReferences:
    """No worker waits for another one before the end of the step."""

    settings: ClassVar[Mapping[str, Any]] = {"balance_batch": False}

    def __init__(self, profile: Profile, shares: Sequence[Share]) -> None:
        self._shares = shares
        self._workers = workers(Device, shares)

    def step(self, step: int) -> float:
        batches = self._between([worker.generate.remote(step) for worker in self._workers])
        scores = self._between([self._on(at, "score", batch) for at, batch in enumerate(batches)])
        gains = [self._on(at, "advantages", batch) for at, batch in enumerate(batches)]
        everything = zip(self._workers, batches, scores, gains, strict=True)
        trained = [worker.train.remote(batch, score, gain) for worker, batch, score, gain in everything]
        return float(sum(ray.get(trained)))

    def close(self) -> None:
        pass

    def replace_dead(self) -> None:
        """Waits until each worker answers; one that died is started anew on its node, as soon as that is there."""
        for at, share in enumerate(self._shares):
            while True:
                try:
                    ray.get(self._workers[at].is_up.remote())
                    break
                except ray.exceptions.RayError:
                    self._workers[at] = worker(Device, share)

    def _on(self, worker: int, method: str, batch: Any) -> Any:
        return getattr(self._workers[worker], method).remote(batch)

    def _between(self, refs: list[Any]) -> list[Any]:
        """What a stage made, for the next one."""
        return refs


class ByStages(ByReferences):
    """A stage begins when the one before it is done everywhere."""

    def _between(self, refs: list[Any]) -> list[Any]:
        ray.wait(refs, num_returns=len(refs), fetch_local=False)
        return refs
