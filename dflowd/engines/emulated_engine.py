"""An engine without a model: sleeps for as long as a real one computes, makes payloads of the real shape, and really
sums and applies small float32 gradients.

Payloads follow from (spec, step, stage, partition), or from fresh entropy with `noise` in the profile. Each one names
the shard it was made from, and a leaf that is handed the text of one execution with the reward of another says so
instead of training on it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import numpy as np

from dflow_protocols.names import ShardRef
from dflow_protocols.pipeline.plan import plan
from dflow_protocols.work import (
    ApplyWork,
    BlockWork,
    ChainWork,
    Done,
    Groups,
    InitWork,
    LeafGroups,
    LoadWork,
    Made,
    SaveWork,
    SliceWork,
    SumWork,
)
from dflowd.jobs import counter_random
from dflowd.jobs.job import Job, put
from dflowd.slots.doing import Doing
from dflowd.training import checkpoint
from dflowd.training.accumulate import Vector
from dflowd.training.block import sum_block
from dflowd.training.update import FLOAT_BYTES, apply_slices, first_state, reduce_slice, sum_blocks

from .emulated_payload import Payload, pretend, profile_of, refuse_mixtures


class EmulatedEngine:
    capabilities: tuple[str, ...] = ("emulated",)
    numerics = f"emulated numpy-{np.__version__.split('.')[0]}"

    def init(self, job: Job, work: InitWork) -> Done:
        profile, start = profile_of(job.pipeline), time.perf_counter()
        names = job.pipeline.trainable
        sizes = [FLOAT_BYTES * int(profile["parameters"])] * len(names)

        def fill(name: str, parameters: Vector) -> None:
            parameters[:] = counter_random.stream(self._key(job, 0, "init", name), len(parameters))
            job.progress()

        outputs = first_state(job, work, names, sizes, fill)
        return Done((Made("init", outputs, seconds=time.perf_counter() - start),))

    def chain(self, job: Job, work: ChainWork) -> Done:
        """Each operator's columns are those of the torch engine, with one more, `source`: see the module."""
        (chain,) = (c for c in plan(job.pipeline, work.step).chains if set(work.stages) <= set(c.stages))
        blobs = {name: bytes(job.shards.read(ref)) for name, ref in work.inputs}
        made: list[tuple[str, str, Groups, tuple[tuple[str, float], ...], float]] = []
        for stage_id in work.stages:
            start = time.perf_counter()
            job.board.write(Doing(stage_id, f"it pretended `{stage_id}`"))
            key = self._key(job, work.step, stage_id, work.partition)
            name, blob, groups, metrics = Payload(job, work, job.pipeline.stage(stage_id), chain, blobs, key).make()
            blobs[f"{stage_id}.{name}"] = blob
            made.append((stage_id, name, groups, metrics, time.perf_counter() - start))
        refs = put(job.shards, [blobs[f"{stage_id}.{name}"] for stage_id, name, *_ in made])
        results = tuple(
            Made(stage_id, ((name, ref),), metrics, groups, seconds)
            for (stage_id, name, groups, metrics, seconds), ref in zip(made, refs, strict=True)
        )
        return Done(results, _samples(work) if work.partition == 0 else ())

    def block(self, job: Job, work: BlockWork) -> Done:
        profile = profile_of(job.pipeline)
        inputs = {(partition, name): ref for partition, name, ref in work.inputs}
        refuse_mixtures(job, inputs)
        samples = _samples_of_a_group(job, inputs)

        def add(leaf: LeafGroups, gradient: Vector) -> dict[str, float]:
            gradient += self._gradient(job, work, leaf, inputs, profile)
            groups = sum(end - first for _, first, end in leaf.pieces)
            return {"trained_samples": float(groups * samples)}

        return sum_block(job, work, add)

    def sum_(self, job: Job, work: SumWork) -> Done:
        start = time.perf_counter()
        outputs = sum_blocks(job, work)
        return Done((Made(work.stage, outputs, work.metrics, seconds=time.perf_counter() - start),))

    def slice_(self, job: Job, work: SliceWork) -> Done:
        start = time.perf_counter()
        pretend(job, profile_of(job.pipeline), "reduce_s")
        ref = reduce_slice(job, work)
        return Done((Made(work.stage, (("slice", ref),), seconds=time.perf_counter() - start),))

    def apply(self, job: Job, work: ApplyWork) -> Done:
        start = time.perf_counter()
        pretend(job, profile_of(job.pipeline), "apply_s")
        stage = job.pipeline.stage(work.stage)
        outputs, metrics = apply_slices(job, work, str(stage.model), stage.config)
        return Done((Made(work.stage, outputs, metrics, seconds=time.perf_counter() - start),))

    def save(self, job: Job, work: SaveWork) -> Done:
        start = time.perf_counter()
        pretend(job, profile_of(job.pipeline), "save_s")
        folder = checkpoint.write(job, work, lambda folder: {})
        return Done((Made("save", (), seconds=time.perf_counter() - start),), detail=str(folder))

    def load(self, job: Job, work: LoadWork) -> Done:
        return checkpoint.read(job, work)

    def release(self) -> None:
        pass  # nothing of a call outlives it

    def _gradient(
        self,
        job: Job,
        work: BlockWork,
        leaf: LeafGroups,
        inputs: Mapping[tuple[int, str], ShardRef],
        profile: Mapping[str, float],
    ) -> Vector:
        """A function of exactly what the leaf reads, in its order."""
        pretend(job, profile, "gradient_s")
        read = [str(inputs[key].id) for key in sorted(inputs) if key[0] in {piece[0] for piece in leaf.pieces}]
        pieces = [number for piece in leaf.pieces for number in piece]
        state = [str(ref.id) for _, ref in work.state]
        key = self._key(job, work.step, work.stage, *read, *pieces, *state)
        return counter_random.stream(key, int(profile["parameters"]))

    def _key(self, job: Job, *names: str | int | bytes) -> bytes:
        entropy = os.urandom(8) if profile_of(job.pipeline)["noise"] else b""
        return counter_random.digest(str(job.pipeline.id), entropy, *names)


def _samples_of_a_group(job: Job, inputs: Mapping[tuple[int, str], ShardRef]) -> int:
    """By the rollout's stage; a demonstration is a group of its own."""
    stages = [name.partition(".")[0] for _, name in sorted(inputs) if name.endswith(".rollout")]
    return int(job.pipeline.stage(stages[0]).config["group"]) if stages else 1


def _samples(work: ChainWork) -> tuple[dict[str, object], ...]:
    return ({"prompt": f"prompt of step {work.step}", "completion": "pretended", "reward": 0.0},)
