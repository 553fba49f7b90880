"""The engine of real models: transformers on the CPU or one GPU.

It keeps models and data sets of the run it works for; parameters are loaded by shard before they are used, so it is
right from the shards alone.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from dflow_protocols.metrics import merge
from dflow_protocols.pipeline import Chain, Pipeline, Stage, partition_groups, plan
from dflow_protocols.ranges import State, shards_of
from dflow_protocols.versions.saved import Place
from dflow_protocols.work import (
    ApplyWork,
    BlockWork,
    ChainWork,
    Done,
    InitWork,
    LeafGroups,
    LoadWork,
    Made,
    SaveWork,
    SliceWork,
    SumWork,
)
from dflowd.data.order import DataSet
from dflowd.jobs.counter_random import number
from dflowd.jobs.job import Job, put
from dflowd.models.policy import Policy
from dflowd.models.proof import require_own_numbers
from dflowd.operators.partition import Columns, Output, Partition
from dflowd.operators.registry import operate
from dflowd.operators.user_code import check_files, forget_user_code
from dflowd.shards import layout
from dflowd.slots.doing import Doing
from dflowd.training import checkpoint
from dflowd.training.accumulate import Vector
from dflowd.training.block import sum_block
from dflowd.training.gather import leaf_data, objective_of
from dflowd.training.leaf import Sums, add_gradient
from dflowd.training.update import FLOAT_BYTES, apply_slices, first_state, reduce_slice, sum_blocks

from .exactness import numerics_class, settle
from .heap import give_back
from .samples import specimens


class TorchEngine:
    def __init__(self) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        settle(self._device)
        self.numerics = numerics_class(self._device)
        self.capabilities: tuple[str, ...] = ("torch", self._device.type)
        self._run: tuple[str, Path] | None = None
        self._policies: dict[str, Policy] = {}
        self._data: dict[str, DataSet] = {}

    def init(self, job: Job, work: InitWork) -> Done:
        start = time.perf_counter()
        self._enter(job)
        names = job.pipeline.trainable
        self._policies.clear()  # what is built now has its first weights, whatever was loaded before
        policies = [self._policy(job, name) for name in names]
        sizes = [FLOAT_BYTES * policy.size for policy in policies]

        def fill(name: str, parameters: Vector) -> None:
            self._policies[name].write(parameters, job.progress)

        outputs = first_state(job, work, names, sizes, fill)
        return Done((Made("init", outputs, seconds=time.perf_counter() - start),))

    def chain(self, job: Job, work: ChainWork) -> Done:
        self._enter(job)
        (chain,) = (c for c in plan(job.pipeline, work.step).chains if set(work.stages) <= set(c.stages))
        known: dict[str, Columns] = {name: layout.decode(job.shards.read(ref)) for name, ref in work.inputs}
        parts: list[tuple[str, list[Output], float]] = []
        for stage_id in work.stages:
            start = time.perf_counter()
            stage = job.pipeline.stage(stage_id)
            job.board.write(Doing(stage_id, f"it did `{stage.op}`"))
            outputs = operate(self._partition(job, work, stage, chain, known))
            known |= {f"{stage_id}.{output.name}": output.columns for output in outputs}
            parts.append((stage_id, outputs, time.perf_counter() - start))
        refs = iter(put(job.shards, [layout.encode(o.columns) for _, outputs, _ in parts for o in outputs]))
        made = tuple(
            Made(
                stage_id,
                tuple((output.name, next(refs)) for output in outputs),
                merge(tuple(output.metrics.items()) for output in outputs),
                next((output.groups for output in outputs if output.groups), ()),
                seconds,
            )
            for stage_id, outputs, seconds in parts
        )
        samples = specimens(job.pipeline, known, self._data) if work.partition == 0 else ()
        return Done(made, samples)

    def block(self, job: Job, work: BlockWork) -> Done:
        self._enter(job)
        stage = job.pipeline.stage(work.stage)
        policy = self._loaded(job, str(stage.model), work.state)
        objective = objective_of(job.pipeline, stage)
        inputs = {(part, name): layout.decode(job.shards.read(ref)) for part, name, ref in work.inputs}

        def add(leaf: LeafGroups, gradient: Vector) -> Sums:
            policy.begin_gradient(gradient)
            sums = add_gradient(policy, leaf_data(job.pipeline, stage, leaf, inputs), objective, job.progress)
            policy.end_gradient(gradient)
            return sums

        done = sum_block(job, work, add)
        give_back(policy.size)
        return done

    def sum_(self, job: Job, work: SumWork) -> Done:
        start = time.perf_counter()
        outputs = sum_blocks(job, work)
        return Done((Made(work.stage, outputs, work.metrics, seconds=time.perf_counter() - start),))

    def slice_(self, job: Job, work: SliceWork) -> Done:
        start = time.perf_counter()
        ref = reduce_slice(job, work)
        return Done((Made(work.stage, (("slice", ref),), seconds=time.perf_counter() - start),))

    def apply(self, job: Job, work: ApplyWork) -> Done:
        start = time.perf_counter()
        stage = job.pipeline.stage(work.stage)
        outputs, metrics = apply_slices(job, work, str(stage.model), stage.config)
        return Done((Made(work.stage, outputs, metrics, seconds=time.perf_counter() - start),))

    def save(self, job: Job, work: SaveWork) -> Done:
        """The first trainable model fills the folder; others have folders of their names in it."""
        start = time.perf_counter()
        self._enter(job)

        def fill(folder: Path) -> dict[str, Place]:
            places = {}
            for index, name in enumerate(job.pipeline.trainable):
                place = folder / name if index else folder
                place.mkdir(exist_ok=True)
                policy = self._loaded(job, name, work.state)
                with job.opaque():
                    policy.save(place)
                refs = shards_of(work.state, f"params:{name}")
                lies = checkpoint.parameters_in(place, refs, job.progress)
                if lies is not None:
                    places[f"params:{name}"] = Place(str((place / lies.file).relative_to(folder)), lies.offset)
                job.progress()
            return places

        folder = checkpoint.write(job, work, fill)
        return Done((Made("save", (), seconds=time.perf_counter() - start),), detail=str(folder))

    def load(self, job: Job, work: LoadWork) -> Done:
        return checkpoint.read(job, work)

    def release(self) -> None:
        for policy in self._policies.values():
            policy.unload()

    def _enter(self, job: Job) -> None:
        """Forget another run's models, data and code. Raises HostError where this host has other files."""
        run = (str(job.pipeline.id), job.base)
        if self._run != run:
            self._run = None
            self._policies.clear()
            self._data.clear()
            forget_user_code()
            with job.opaque():
                check_files(job.pipeline, job.base)
            self._run = run

    def _policy(self, job: Job, name: str) -> Policy:
        if name not in self._policies:
            config = job.pipeline.models[name]
            with job.opaque(), job.board.showing(replace(job.board.read(), what=f"it loaded model `{name}`")):
                policy = Policy(name, config, job.base, first_seed(job.pipeline, name), self._device)
                check_files(job.pipeline, job.base, f"models.{name}.")
            require_own_numbers(policy, job.progress)
            self._policies[name] = policy
        return self._policies[name]

    def _loaded(self, job: Job, name: str, state: State) -> Policy:
        """A model with the parameters of `state`; one that is not trained has those it started with."""
        policy = self._policy(job, name)
        refs = shards_of(state, f"params:{name}")
        if refs:
            policy.load(tuple(ref.id for ref in refs), job.shards.read(*refs))
        return policy

    def _dataset(self, job: Job, name: str) -> DataSet:
        if name not in self._data:
            with job.opaque(), job.board.showing(replace(job.board.read(), what=f"it read data `{name}`")):
                data = DataSet(name, job.pipeline.data[name], job.base, job.pipeline.seed)
                check_files(job.pipeline, job.base, f"data.{name}.")
            self._data[name] = data
        self._data[name].progress = job.progress
        return self._data[name]

    def _partition(self, job: Job, work: ChainWork, stage: Stage, chain: Chain, known: dict[str, Columns]) -> Partition:
        first, end = partition_groups(chain, work.partition)

        def policy(name: str) -> Policy:
            if stage.operator.model == "tokenizer":
                return self._policy(job, name)
            return self._loaded(job, name, work.state)

        return Partition(
            job.pipeline,
            job.base,
            work.step,
            stage,
            first,
            end,
            known,
            policy,
            lambda name: self._dataset(job, name),
            job.progress,
            job.board,
            job.opaque,
        )


def first_seed(pipeline: Pipeline, model: str) -> int:
    """What a model's first weights are drawn from. Models described alike start alike, so that a reference is where
    its policy came from."""
    return number("init", str(pipeline.id), json.dumps(pipeline.models[model], sort_keys=True)) >> 1
