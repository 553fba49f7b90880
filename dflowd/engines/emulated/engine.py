"""An engine without a model: sleeps for as long as a real one computes, makes payloads of the real shape, and really
sums and applies small float32 gradients.

Payloads follow from (spec, step, stage, partition), or from fresh entropy with `noise` in the profile. Each one names
the shard it was made from, and a leaf that is handed the text of one execution with the reward of another says so
instead of training on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from dflow_protocols.names import ShardRef, hash_shard
from dflow_protocols.pipeline.plan import plan
from dflow_protocols.ranges import FLOAT_BYTES, State
from dflow_protocols.versions.saved import Place
from dflow_protocols.work import (
    ApplyWork,
    BlockWork,
    ChainWork,
    Done,
    Groups,
    LeafGroups,
    Made,
    SaveWork,
    SliceWork,
    Work,
)
from dflowd.data import columns
from dflowd.engines.contract import Engine
from dflowd.engines.states import ShardStates
from dflowd.jobs import counter_random
from dflowd.jobs.job import Job, put
from dflowd.shards import layout
from dflowd.slots.doing import Doing
from dflowd.training.accumulate import HostMemory, Vector, spans
from dflowd.training.block import size_of, sum_block

from .payload import Payload, key_of, refuse_mixtures
from .profile import TRAINING, Device, Profile, profile_of, train_s

DRAWN = 1_048_573  # a prime, so that no two of the first million chunks begin at the same place of it
PRETENDED: Mapping[type[Work], str] = {SliceWork: "reduce_s", ApplyWork: "apply_s", SaveWork: "save_s"}


def make_engine() -> Engine:
    device = Device()
    return Engine(
        capabilities=("emulated",),
        numerics=f"emulated numpy-{np.__version__.split('.')[0]}",
        rollouts=EmulatedRollouts(device),
        gradients=EmulatedGradients(device),
        states=ShardStates(EmulatedWeights(), partial(_pretend, device)),
    )


class EmulatedRollouts:
    """Each operator's columns are those of the torch engine, with one more, `source`: see the module."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def chain(self, job: Job, work: ChainWork) -> Done:
        (chain,) = (c for c in plan(job.pipeline, work.step).chains if set(work.stages) <= set(c.stages))
        step = job.pipeline.schedule.place(work.step).step
        blobs: dict[str, bytes | memoryview] = {name: job.shards.read(ref) for name, ref in work.inputs}
        ids = {name: ref.id for name, ref in work.inputs}
        written, hashes = list[bytes](), list[tuple[bytes, ...]]()
        made: list[tuple[str, tuple[str, ...], Groups, tuple[tuple[str, float], ...], float]] = []
        for stage_id in work.stages:
            start = job.baton.seconds()
            job.board.write(Doing(stage_id, f"it pretended `{stage_id}`"))
            key = key_of(job.pipeline, step, stage_id, work.partition)
            payload = Payload(job, work, job.pipeline.stage(stage_id), chain, blobs, ids, key, self._device)
            outputs, groups, metrics = payload.make()
            for name, blob in outputs.items():
                blobs[f"{stage_id}.{name}"] = blob
                ids[f"{stage_id}.{name}"], of_chunks = hash_shard(blob)
                written.append(blob)
                hashes.append(of_chunks)
            made.append((stage_id, tuple(outputs), groups, metrics, job.baton.seconds() - start))
        refs = iter(put(job.shards, written, hashes))
        results = tuple(
            Made(stage_id, tuple((name, next(refs)) for name in names), metrics, groups, seconds)
            for stage_id, names, groups, metrics, seconds in made
        )
        return Done(results, _samples(step) if work.partition == 0 else ())


class EmulatedGradients:
    """Gradients drawn from what a leaf reads."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def block(self, job: Job, work: BlockWork) -> Done:
        profile = profile_of(job.pipeline)
        inputs = {(partition, name): ref for partition, name, ref in work.inputs}
        refuse_mixtures(job, inputs)
        samples = _samples_of_a_group(job, inputs)

        memory = HostMemory(size_of(work), job.progress)

        def add(leaf: LeafGroups) -> tuple[Vector, dict[str, float]]:
            gradient = memory.blank()
            self._draw(gradient, job, work, leaf, inputs, profile)
            groups = sum(end - first for _, first, end in leaf.pieces)
            return gradient, {"trained_samples": float(groups * samples)}

        return sum_block(job, work, memory, add)

    def _draw(
        self,
        gradient: Vector,
        job: Job,
        work: BlockWork,
        leaf: LeafGroups,
        inputs: Mapping[tuple[int, str], ShardRef],
        profile: Profile,
    ) -> None:
        """Fill in a function of exactly what the leaf reads, in its order."""
        self._device.enter(job, profile, TRAINING)
        self._device.fill(job, profile, train_s(profile, _trained_tokens(job, leaf, inputs)))
        read = [str(inputs[key].id) for key in sorted(inputs) if key[0] in {piece[0] for piece in leaf.pieces}]
        pieces = [number for piece in leaf.pieces for number in piece]
        state = [str(ref.id) for _, ref in work.state]
        whitened = [number.hex() for number in work.whitening or ()]
        key = key_of(job.pipeline, work.step, work.stage, *read, *pieces, *state, *whitened)
        _fill(job, gradient, key)


class EmulatedWeights:
    """Models of as many parameters as the profile says, and no file of their own."""

    def sizes(self, job: Job) -> Mapping[str, int]:
        return dict.fromkeys(job.pipeline.trainable, FLOAT_BYTES * int(profile_of(job.pipeline)["parameters"]))

    def fill(self, job: Job, model: str, parameters: Vector) -> None:
        _fill(job, parameters, key_of(job.pipeline, 0, "init", model))

    def base(self, job: Job, model: str) -> bytes:
        raise NotImplementedError("a model without weights has no adapters")

    def save(self, job: Job, state: State, folder: Path) -> Mapping[str, Place]:
        return {}


def _pretend(device: Device, job: Job, work: Work) -> None:
    if type(work) in PRETENDED:
        profile = profile_of(job.pipeline)
        device.fill(job, profile, profile[PRETENDED[type(work)]])


def _fill(job: Job, vector: Vector, key: bytes) -> None:
    """With numbers of which DRAWN are drawn, and repeated."""
    drawn = counter_random.stream(key, min(len(vector), DRAWN))
    for span in spans(len(vector), DRAWN):
        vector[span] = drawn[: span.stop - span.start]
        job.progress()


def _samples_of_a_group(job: Job, inputs: Mapping[tuple[int, str], ShardRef]) -> int:
    """By the rollout's stage; a demonstration is a group of its own."""
    stages = [name.partition(".")[0] for _, name in sorted(inputs) if name.endswith(".rollout")]
    return job.pipeline.beginning_of(stages[0]).width if stages else 1


def _trained_tokens(job: Job, leaf: LeafGroups, inputs: Mapping[tuple[int, str], ShardRef]) -> int:
    """Of the completions, or demonstrations, in the groups of a leaf."""
    samples = _samples_of_a_group(job, inputs)
    total = 0
    for (partition, name), ref in inputs.items():
        if name.endswith((".rollout", ".batch")):
            lengths = columns.lengths(layout.decode(job.shards.read(ref))["tokens"])
            pieces = [piece for piece in leaf.pieces if piece[0] == partition]
            total += sum(int(lengths[first * samples : end * samples].sum()) for _, first, end in pieces)
    return total


def _samples(step: int) -> tuple[dict[str, object], ...]:
    return ({"prompt": f"prompt of step {step}", "completion": "pretended", "answer": "", "reward": 0.0},)
