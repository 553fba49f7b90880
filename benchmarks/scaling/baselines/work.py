"""What a worker computes: it sleeps as long as an emulated engine does for the same completions, and makes as many
bytes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from benchmarks.scaling.profile import PARTITIONS, Profile
from dflowd.engines.emulated.payload import IMAGE_BYTES, rollout_lengths
from dflowd.engines.emulated.profile import generate_s, profile_of

Batch: TypeAlias = dict[str, Any]
"""Column -> array of [samples, ...]."""


@dataclass(frozen=True, slots=True)
class Share:
    """What worker `node` does of a run of `steps` steps with the work of `work` nodes: that of `count` nodes, one after
    the other."""

    profile: Profile
    work: int
    steps: int
    node: int
    count: int


class Device:
    """One node's devices."""

    def __init__(self, share: Share) -> None:
        self._share, self._profile = share, share.profile
        self._pipeline = self._profile.pipeline(share.work, share.steps)
        self._pace = profile_of(self._pipeline)
        drawn = np.random.default_rng(share.node).bytes(min(IMAGE_BYTES, self._profile.sample_bytes))
        self._drawn = np.frombuffer(drawn, np.uint8)

    def lengths(self, step: int) -> list[list[Any]]:
        """Tokens of the completions of this step: of each node's work by partition, as the mesh draws them."""
        first = self._share.node * self._share.count
        return [
            [rollout_lengths(self._pipeline, step, "roll", node * PARTITIONS + at) for at in range(PARTITIONS)]
            for node in range(first, first + self._share.count)
        ]

    def sampling_s(self, partitions: Sequence[Any]) -> list[float]:
        """Seconds until each of these partitions is done, which one node samples together."""
        group = self._profile.group
        return [generate_s(self._pace, len(lengths) // group, lengths) for lengths in partitions]

    def samples(self, count: int) -> Any:
        """[count, sample_bytes] uint8: ids, masks, log-probabilities and images, as one column."""
        return np.resize(self._drawn, (count, self._profile.sample_bytes))

    def generate(self, step: int) -> Batch:
        nodes = self.lengths(step)
        time.sleep(sum(max(self.sampling_s(partitions)) for partitions in nodes))
        lengths = np.concatenate([part for partitions in nodes for part in partitions])
        return {"sample": self.samples(len(lengths)), "lengths": lengths}

    def score(self, batch: Mapping[str, Any]) -> Batch:
        time.sleep(self._pace["score_token_s"] * float(batch["lengths"].sum()))
        return {"ref": np.zeros(len(batch["lengths"]), np.float32)}

    def advantages(self, batch: Mapping[str, Any]) -> Batch:
        return advantages(batch["lengths"], self._profile.group)

    def train(self, *batches: Mapping[str, Any]) -> float:
        tokens = float(batches[0]["lengths"].sum())
        time.sleep(self._pace["train_token_s"] * tokens)
        return tokens

    def is_up(self) -> bool:
        return True


def advantages(lengths: Any, group: int) -> Batch:
    """Of made-up rewards, groups one behind the other."""
    rewards = (np.asarray(lengths) % 2).astype(np.float32).reshape(-1, group)
    return {"advantages": (rewards - rewards.mean(1, keepdims=True)).reshape(-1)}


def balanced(lengths: Any, count: int) -> list[Any]:
    """Indices of the samples for each of `count` workers: as many for each, and about as many tokens, as verl's
    `balance_batch` has it. The longest ones are dealt in snake order."""
    rounds = np.argsort(-np.asarray(lengths), kind="stable").reshape(-1, count).copy()
    rounds[1::2] = rounds[1::2, ::-1]
    return list(rounds.T)
