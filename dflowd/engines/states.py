"""The state of a version, kept alike by every engine: what is summed, applied, saved and loaded are shards.

Only version 0 and a checkpoint's model files need to know the models; an engine says that much by its `Weights`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from dflow_protocols.ranges import State
from dflow_protocols.versions.saved import Place
from dflow_protocols.work import ApplyWork, Done, InitWork, LoadWork, Made, SaveWork, SliceWork, SumWork, Work
from dflowd.jobs.job import Job, put
from dflowd.training import checkpoint
from dflowd.training.accumulate import Vector
from dflowd.training.apply import apply_slices
from dflowd.training.update import first_state, reduce_slice, sum_blocks


class Weights(Protocol):
    """What an engine knows of its models."""

    def sizes(self, job: Job) -> Mapping[str, int]:
        """Bytes of the parameters of each trainable model, which has its first ones from now on. Raises UserError."""

    def fill(self, job: Job, model: str, parameters: Vector) -> None:
        """Write a model's first parameters, [P]. Raises GivenUp."""

    def base(self, job: Job, model: str) -> bytes:
        """The hash of the weights that a model's parameters are adapters of: asked of the pipeline's `bases` alone."""

    def save(self, job: Job, state: State, folder: Path) -> Mapping[str, Place]:
        """Write the models as their makers' tools open them; returns where roles of the state lie whole in that."""


class ShardStates:
    """States (contract.py) of any engine. `before`: called as each work begins, within the time that it takes."""

    def __init__(self, weights: Weights, before: Callable[[Job, Work], None] = lambda job, work: None) -> None:
        self._weights = weights
        self._before = before

    def init(self, job: Job, work: InitWork) -> Done:
        start = time.perf_counter()
        self._before(job, work)
        sizes = self._weights.sizes(job)

        def fill(model: str, parameters: Vector) -> None:
            self._weights.fill(job, model, parameters)

        outputs = first_state(job, work, tuple(sizes), tuple(sizes.values()), fill)
        if bases := job.pipeline.bases:
            refs = put(job.shards, [self._weights.base(job, model) for model in bases])
            outputs += tuple((f"base:{model}", ref) for model, ref in zip(bases, refs, strict=True))
        return Done((Made("init", outputs, seconds=time.perf_counter() - start),))

    def sum_(self, job: Job, work: SumWork) -> Done:
        start = time.perf_counter()
        self._before(job, work)
        outputs = sum_blocks(job, work)
        return Done((Made(work.stage, outputs, work.metrics, seconds=time.perf_counter() - start),))

    def slice_(self, job: Job, work: SliceWork) -> Done:
        start = time.perf_counter()
        self._before(job, work)
        ref = reduce_slice(job, work)
        return Done((Made(work.stage, (("slice", ref),), seconds=time.perf_counter() - start),))

    def apply(self, job: Job, work: ApplyWork) -> Done:
        start = time.perf_counter()
        self._before(job, work)
        stage = job.pipeline.stage(work.stage)
        outputs, metrics = apply_slices(job, work, str(stage.model), stage.config)
        return Done((Made(work.stage, outputs, metrics, seconds=time.perf_counter() - start),))

    def save(self, job: Job, work: SaveWork) -> Done:
        start = time.perf_counter()
        self._before(job, work)
        folder = checkpoint.write(job, work, lambda folder: self._weights.save(job, work.state, folder))
        return Done((Made("save", (), seconds=time.perf_counter() - start),), detail=str(folder))

    def load(self, job: Job, work: LoadWork) -> Done:
        self._before(job, work)
        return checkpoint.read(job, work)
