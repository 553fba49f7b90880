"""The engine of real models: transformers on the CPU or one GPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dflow_protocols.pipeline.weighing import with_coefficients
from dflow_protocols.ranges import FLOAT_BYTES, State, shards_of
from dflow_protocols.versions.saved import Place
from dflow_protocols.work import BlockWork, Done, LeafGroups
from dflowd.jobs.job import Job
from dflowd.models.parameters import DTYPES, HOST
from dflowd.models.policy import Policy
from dflowd.shards import layout
from dflowd.training import checkpoint
from dflowd.training.accumulate import Tree, Vector
from dflowd.training.block import Sums, size_of, sum_block
from dflowd.training.device_memory import memory_on
from dflowd.training.finite import judge
from dflowd.training.gather import leaf_data, objective_of
from dflowd.training.leaf import add_gradient

from .contract import Engine
from .exactness import numerics_class, own_device, settle
from .heap import give_back
from .opened import Opened
from .own_code import own_loss_of
from .rollouts import OperatorRollouts
from .states import ShardStates


def make_engine() -> Engine:
    device = own_device()
    settle(device)
    opened = Opened(device)
    kept = opened if device == HOST else Opened(HOST)  # what is only read and written has no place on a device

    def release() -> None:
        opened.unload()
        if kept is not opened:
            kept.forget_models()

    return Engine(
        capabilities=("torch", device.type),
        numerics=numerics_class(device),
        rollouts=OperatorRollouts(opened),
        gradients=TorchGradients(opened),
        states=ShardStates(TorchWeights(kept)),
        release=release,
        rest=lambda: opened.only(()),
    )


class TorchGradients:
    """Gradients by autograd, leaf by leaf."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened

    def block(self, job: Job, work: BlockWork) -> Done:
        self._opened.enter(job)
        stage = with_coefficients(job.pipeline.stage(work.stage), work.coefficients)
        key = str(stage.model), DTYPES[stage.config.get("compute", "float32")]
        self._opened.only({key})
        policy = self._opened.loaded(job, self._opened.policy(job, *key), work.state)
        policy.recompute(stage.config.get("gradient_checkpointing"))
        objective = objective_of(job.pipeline, stage, own_loss_of(job, stage))
        inputs = {(part, name): layout.decode(job.shards.read(ref)) for part, name, ref in work.inputs}

        memory = memory_on(policy.device, size_of(work), job.progress)

        def add(leaf: LeafGroups) -> tuple[Any, Sums]:
            tree, data = Tree(memory), leaf_data(job.pipeline, stage, leaf, inputs, work.whitening, work.step)
            sums: Sums = add_gradient(policy, data, objective, job.progress, tree)
            gradient = tree.root()
            if gradient is not None:
                sums = judge(work, leaf.leaf, stage.config, sums, gradient, memory)
            return gradient, sums

        done = sum_block(job, work, memory, add)
        give_back(policy.parameters.size)
        return done


class TorchWeights:
    """Weights of transformers' models, saved as `save_pretrained` does it."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened

    def sizes(self, job: Job) -> Mapping[str, int]:
        self._opened.enter(job)
        self._opened.forget_models()
        return {name: FLOAT_BYTES * self._kept(job, name).parameters.size for name in job.pipeline.trainable}

    def fill(self, job: Job, model: str, parameters: Vector) -> None:
        self._kept(job, model).parameters.write(parameters, job.progress)

    def base(self, job: Job, model: str) -> bytes:
        return self._kept(job, model).base_id

    def save(self, job: Job, state: State, folder: Path) -> Mapping[str, Place]:
        self._opened.enter(job)
        places = {}
        for name in job.pipeline.trainable:
            place = folder / job.pipeline.folder_of(name)
            place.mkdir(exist_ok=True)
            policy = self._opened.loaded(job, self._kept(job, name), state)
            with job.opaque():
                policy.save(place)
            refs = shards_of(state, f"params:{name}")
            lies = checkpoint.parameters_in(place, refs, job.progress)
            if lies is not None:
                places[f"params:{name}"] = Place(str((place / lies.file).relative_to(folder)), lies.offset)
            job.progress()
        return places

    def _kept(self, job: Job, name: str) -> Policy:
        """The model that a version's parameters are written from: in float32, as they are kept. Adapters are float32
        beside a base of any dtype, so the one that samples will do, unless its base is to be saved as well."""
        is_there = name in job.pipeline.bases and "path" in job.pipeline.models[name]
        return self._opened.scorer(job, name) if is_there else self._opened.policy(job, name)
