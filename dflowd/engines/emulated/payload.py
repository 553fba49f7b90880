"""What the emulated engine makes of a partition: columns of the real names, types and lengths, filled from a seed.

Rewards rise with the step, so that curves look alive. Whatever is made from a rollout names it in `source`.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dflow_protocols.names import ShardId, ShardRef, hash_shard
from dflow_protocols.pipeline import Pipeline, Stage
from dflow_protocols.pipeline.plan import Chain, partition_groups, plan
from dflow_protocols.pipeline.weighing import reward_weights
from dflow_protocols.work import ChainWork, Groups
from dflowd.data import columns
from dflowd.jobs import counter_random
from dflowd.jobs.failures import UserError
from dflowd.jobs.job import Job
from dflowd.shards import layout

from .profile import (
    NAP_S,
    SAMPLING,
    Device,
    draw_lengths,
    generate_s,
    profile_of,
    score_s,
)

VOCABULARY = 1000
IMAGE_BYTES = 1 << 20  # that are drawn
KEPT_SHARE = 2 / 3  # of the groups that a filter is given

BY_TOKEN = ("value", "return")  # outputs that have a number for each token, and not for each completion

Made = tuple[dict[str, bytes], Groups, tuple[tuple[str, float], ...]]
"""(bytes by the outputs' names, groups, metrics)"""


def rollout_lengths(pipeline: Pipeline, step: int, stage_id: str, partition: int) -> Any:
    """Tokens of the completions that the engine draws for this partition, [samples] int32, where its profile is without
    noise: for other systems that are given the same work."""
    stage = pipeline.stage(stage_id)
    number = pipeline.schedule.firsts[step]
    (chain,) = (chain for chain in plan(pipeline, number).chains if stage_id in chain.stages)
    first, end = partition_groups(chain, partition)
    count = (end - first) * stage.width
    return draw_lengths(profile_of(pipeline), draws(key_of(pipeline, step, stage_id, partition)), count, longest(stage))


def key_of(pipeline: Pipeline, *names: str | int | bytes) -> bytes:
    """What the engine draws from follows from it."""
    entropy = os.urandom(8) if profile_of(pipeline)["noise"] else b""
    return counter_random.digest(str(pipeline.id), entropy, *names)


def draws(key: bytes) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(int.from_bytes(key, "little")))


def longest(stage: Stage) -> float:
    """Tokens of a completion at most."""
    return float(stage.config.get("max_tokens", math.inf))


def refuse_mixtures(job: Job, inputs: Mapping[tuple[int, str], ShardRef]) -> None:
    """Raises ValueError where something made from one rollout lies beside another.

    `inputs`: (partition, "stage.output") -> shard.
    """
    rollouts = {partition: ref.id for (partition, name), ref in inputs.items() if name.endswith(".rollout")}
    for (partition, name), ref in sorted(inputs.items()):
        source = columns.values(layout.decode(job.shards.read(ref))["source"]).tobytes()
        if source and source.hex() != rollouts.get(partition):
            raise ValueError(f"partition {partition}: {name} was made from another rollout")


class Payload:
    """One stage's output on one partition. `blobs`, `ids`: of what it may read, by "stage.output"."""

    def __init__(
        self,
        job: Job,
        work: ChainWork,
        stage: Stage,
        chain: Chain,
        blobs: Mapping[str, bytes | memoryview],
        ids: Mapping[str, ShardId],
        key: bytes,
        device: Device,
    ) -> None:
        self._job, self._stage, self._blobs, self._device = job, stage, blobs, device
        self._ids = ids
        self._profile = profile_of(job.pipeline)
        self._partition, self._version = work.partition, work.version
        self._first, self._end = partition_groups(chain, work.partition)
        self._count = self._end - self._first
        self._rng = draws(key)
        schedule = job.pipeline.schedule
        self._skill = 1 - 0.9 * 0.5 ** (4 * schedule.place(work.step).step / max(1, schedule.steps))

    def make(self) -> Made:
        """By what the operator writes; what it has no maker for is drawn."""
        if self._stage.operator.prefers:
            return self._preferences()
        makers = {
            "rollout": self._continue if self._stage.operator.continues else self._generate,
            "reward": self._reward,
            "kept": self._kept,
            "advantage": self._advantage,
            "batch": self._batch,
            "evaluation": self._evaluate,
        }
        return next((makers[name] for name in self._stage.operator.writes if name in makers), self._other)()

    def _encode(self, source: bytes = b"", /, **named: layout.Column) -> bytes:
        return layout.encode(named | {"source": columns.pack(np.frombuffer(source, np.uint8))})

    def _pretend(self, seconds: float) -> None:
        self._device.share(self._job, self._profile, seconds)

    def _lengths(self, count: int) -> Any:
        return draw_lengths(self._profile, self._rng, count, longest(self._stage))

    def _tokens(self, lengths: Any) -> layout.Column:
        return columns.pack(self._rng.integers(0, VOCABULARY, int(lengths.sum()), np.int32), lengths)

    def _generate(self) -> Made:
        while self._profile["hangs"] == self._partition + 1:
            time.sleep(NAP_S)
        self._device.enter(self._job, self._profile, SAMPLING)
        width = self._job.pipeline.beginning_of(self._stage.id).width
        due = self._lengths(self._count * width)
        lengths = np.minimum(due, self._stage.config.get("segment_tokens") or due)
        self._sample(due, lengths)
        if self._profile["kills"] == self._partition + 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._profile["raises"] == self._partition + 1:
            raise UserError("this partition cannot be worked with", self._stage.id)
        logprobs = columns.pack(-self._rng.random(int(lengths.sum()), np.float32), lengths)
        beside = self._images(len(lengths)) | self._versions(lengths)
        if "segment_tokens" in self._stage.config:
            beside |= {"due": columns.pack(due)}
        blob = self._encode(tokens=self._tokens(lengths), logprobs=logprobs, **beside)
        metrics = {
            "samples": len(lengths),
            "completion_tokens": int(lengths.sum()),
            "completion_length_max": int(lengths.max(initial=0)),
            "truncated": 0,
        }
        return {"rollout": blob}, (), _sums(metrics)

    def _continue(self) -> Made:
        """As many tokens more of each completion as a segment has, or as it is to have."""
        self._device.enter(self._job, self._profile, SAMPLING)
        found = self._columns("rollout")
        due, before = columns.values(found["due"]), columns.lengths(found["tokens"])
        more = np.minimum(due - before, self._stage.config["segment_tokens"])
        self._sample(due, more)
        logprobs = columns.pack(-self._rng.random(int(more.sum()), np.float32), more)
        given = {"tokens": self._tokens(more), "logprobs": logprobs, **self._versions(more)}
        made = {name: columns.joined(found[name], columns.rows(column)) for name, column in given.items()}
        metrics = {
            "completion_tokens": int(more.sum()),
            "completion_length_max": int((before + more).max(initial=0)),
        }
        return {"rollout": layout.encode({**found, **made})}, (), _sums(metrics)

    def _sample(self, due: Any, lengths: Any) -> None:
        """Take as long as so many tokens take of completions that are to have `due` in all; both [samples]."""
        share = float(lengths.sum()) / max(1, int(due.sum()))
        seconds = generate_s(self._profile, self._count, lengths)
        self._pretend(seconds - (1 - share) * self._profile["generate_s"])

    def _versions(self, lengths: Any) -> dict[str, layout.Column]:
        """Of each token the version that said it, where it may be any of several."""
        if self._version is None:
            return {}
        return {"version": columns.pack(np.full(int(lengths.sum()), self._version, np.int32), lengths)}

    def _images(self, samples: int) -> dict[str, layout.Column]:
        """As many bytes as the profile says, of which a MiB is drawn and repeated; none if it says none."""
        size = samples * int(self._profile["sample_bytes"])
        if not size:
            return {}
        drawn = np.frombuffer(self._rng.bytes(min(size, IMAGE_BYTES)), np.uint8)
        return {"image": columns.pack(np.resize(drawn, size))}

    def _reward(self) -> Made:
        self._pretend(self._profile["reward_s"])
        source = self._source("rollout")
        rows = len(self._lengths_of("rollout"))
        rewards = (self._rng.random(rows) < self._skill).astype(np.float32)
        metrics = {
            "rewarded": len(rewards),
            "reward_sum": float(rewards.sum()),
            "reward_sq_sum": float(np.square(rewards).sum()),
        }
        return {"reward": self._encode(source, reward=columns.pack(rewards))}, (), _sums(metrics)

    def _preferences(self) -> Made:
        self._pretend(self._profile["reward_s"])
        lengths = self._lengths(self._count * self._stage.width)
        rollout = self._encode(tokens=self._tokens(lengths))
        signs = columns.pack(np.tile(np.array([1, -1], np.float32), self._count))
        advantage = self._encode(bytes.fromhex(hash_shard(rollout)[0]), advantage=signs)
        groups = tuple((int(tokens), 2) for tokens in lengths.reshape(-1, 2).sum(1))
        return {"rollout": rollout, "advantage": advantage}, groups, _sums({"samples": len(lengths)})

    def _advantage(self) -> Made:
        self._pretend(self._profile["reward_s"])
        weighed = [
            weight * columns.values(layout.decode(self._blobs[read])["reward"])
            for read, weight in reward_weights(self._stage).items()
        ]
        rewards = sum(weighed[1:], weighed[0]).reshape(self._count, -1)
        lengths = self._lengths_of("rollout").reshape(rewards.shape)
        flat = rewards.min(1, initial=1) == rewards.max(1, initial=0)
        dropped = flat & bool(self._stage.config.get("drop_flat_groups"))
        for read in self._stage.reads:
            if read.endswith(".kept"):
                dropped |= (columns.values(layout.decode(self._blobs[read])["kept"]) == 0).reshape(rewards.shape).all(1)
        groups = tuple(
            (0, 0) if dropped[row] else (int(lengths[row].sum()), rewards.shape[1]) for row in range(self._count)
        )
        centred = rewards - rewards.mean(1, keepdims=True)
        blob = self._encode(self._source("rollout"), advantage=columns.pack(centred.astype(np.float32)))
        blobs = {"advantage": blob} | self._drawn(tuple(name for name in self._stage.writes if name != "advantage"))
        return blobs, groups, _sums({"groups": self._count, "groups_zero_std": int(flat.sum())})

    def _kept(self) -> Made:
        """Of three groups about two."""
        self._pretend(self._profile["reward_s"])
        kept = (self._rng.random(self._count) < KEPT_SHARE).astype(np.float32)
        width = len(self._lengths_of("rollout")) // self._count
        blob = self._encode(self._source("rollout"), kept=columns.pack(kept.repeat(width)))
        return {"kept": blob}, (), _sums({"filtered_groups": self._count, "kept_groups": float(kept.sum())})

    def _batch(self) -> Made:
        self._pretend(self._profile["reward_s"])
        lengths = self._lengths(self._count)
        return {"batch": self._encode(tokens=self._tokens(lengths))}, tuple((int(n), 1) for n in lengths), ()

    def _evaluate(self) -> Made:
        self._pretend(self._profile["evaluate_s"])
        right = int((self._rng.random(self._count) < self._skill).sum())
        blob = self._encode(correct=layout.column("i64", [right]))
        return {"evaluation": blob}, (), _sums({"evaluated": self._count, "correct": right})

    def _other(self) -> Made:
        self._pretend(self._profile["reward_s"])
        tokens = int(self._lengths_of("rollout").sum())
        self._device.fill(self._job, self._profile, score_s(self._profile, tokens))
        return self._drawn(tuple(self._stage.writes)), (), ()

    def _drawn(self, names: Sequence[str]) -> dict[str, bytes]:
        """Outputs with a number a completion, or a token."""
        lengths, blobs = self._lengths_of("rollout"), dict[str, bytes]()
        for name in names:
            count, rows = (int(lengths.sum()), lengths) if name in BY_TOKEN else (len(lengths), None)
            values = columns.pack(self._rng.random(count, np.float32), rows)
            blobs[name] = self._encode(self._source("rollout"), **{name: values})
        return blobs

    def _name_of(self, output: str) -> str:
        return next(name for name in (*self._stage.reads, *sorted(self._blobs)) if name.endswith(f".{output}"))

    def _columns(self, output: str) -> dict[str, layout.Column]:
        return layout.decode(self._blobs[self._name_of(output)])

    def _lengths_of(self, output: str) -> Any:
        return columns.lengths(self._columns(output)["tokens"])

    def _source(self, output: str) -> bytes:
        return bytes.fromhex(self._ids[self._name_of(output)])


def _sums(values: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    return tuple(sorted((name, float(value)) for name, value in values.items()))
